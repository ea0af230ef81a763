import json

import pytest

from contracts.data import Row
from services.synthesis.diversity import distinct_n, diversity
from services.synthesis.filters import Accepted, Phrases, Rejected, judge

REQUEST = "Book a flight from Oslo to New York on 2024-03-17 for 2 passengers."
SEED = Row(
    id="s",
    messages=({"role": "user", "content": REQUEST},),
    target=json.dumps(
        {
            "name": "book_flight",
            "arguments": {"from": "Oslo", "to": "New York", "seats": 2, "class": "economy"},
        }
    ),
)
GOOD = "Please reserve 2 passengers a flight to New York from Oslo on 2024-03-17."


@pytest.mark.req("S2")
@pytest.mark.parametrize(
    "opening",
    ["", "Certainly! ", "Sure, ", "Sure! Here is the rephrased request: ", "Of course.\n",
     "Here's a politer way to say it: ", "Rephrased request: ", '"'],
)  # fmt: skip
def test_teacher_openings_are_stripped(opening):
    answer = f'{opening}{GOOD}"' if opening == '"' else opening + GOOD
    assert judge(SEED, answer, Phrases.load()) == Accepted(GOOD)


@pytest.mark.req("S2")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("As an AI language model, I can book a flight from Oslo to New York.", "teacher_refusal"),
        ("Certainly! I’m sorry, but I have no access to flights.", "teacher_refusal"),
        ("Sure!", "empty"),
        (REQUEST.upper(), "identical"),
        ("Book 2 now", "length"),
        (GOOD + " And then tell me all about the city," * 6, "length"),
        (GOOD.replace("2024-03-17", "2024-03-18"), "numbers_changed"),
        (GOOD.replace("2 passengers", "some passengers"), "numbers_changed"),
        (GOOD.replace("New York", "Newark"), "value_lost"),
        ('{"name": "book_flight", "arguments": {"from": "Oslo"}}', "not_a_request"),
        ("Bitte buche einen Flug von Oslo nach New York für die 2 Passagiere und das am 2024-03-17",
         "language_drift"),
        ("2024-03-17 にオスロからニューヨークへの 2 名 予約 を お願い します ね",
         "language_drift"),
    ],
)  # fmt: skip
def test_an_unusable_answer_is_rejected_for_a_named_reason(answer, reason):
    assert judge(SEED, answer, Phrases.load()) == Rejected(reason)


def test_an_answer_that_keeps_the_number_and_loses_the_question_is_rejected():
    question = (
        "How much time will it take for the light to reach earth from a star 4 light years away?"
    )
    seed = Row(id="s", messages=({"role": "user", "content": question},), target='{"years": 4}')
    phrases = Phrases.load()
    stray = (
        "How long does a 4-year old take to blow out a candle on the birthday cake with friends?"
    )
    assert judge(seed, stray, phrases) == Rejected("meaning_drift")
    good = "A star is 4 light years away: how long until its light can reach earth?"
    assert judge(seed, good, phrases) == Accepted(good)


@pytest.mark.req("S2")
def test_the_phrase_list_is_a_file_a_user_can_edit(tmp_path):
    own = tmp_path / "prefixes.json"
    own.write_text(json.dumps({"strip": ["Ahoy"], "reject": ["Nay"]}))
    phrases = Phrases.load(own)
    assert judge(SEED, f"Ahoy! {GOOD}", phrases) == Accepted(GOOD)
    assert judge(SEED, f"Nay, {GOOD}", phrases) == Rejected("teacher_refusal")
    assert judge(SEED, f"Ahoy! {GOOD}", Phrases.load()) == Accepted(f"Ahoy! {GOOD}")


@pytest.mark.req("S3")
def test_distinct_n_by_hand():
    assert distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a b", "a c"], 1) == pytest.approx(3 / 4)
    assert distinct_n([], 2) == 0


@pytest.mark.req("S3")
def test_one_voice_raises_the_monoculture_alarm_and_many_do_not():
    same = [f"Could you please show me the weather in town {i}" for i in range(20)]
    assert diversity(same).alarms
    lines = (
        "Find a hotel in Rome", "What is 7 times 8?", "Show my unread mail",
        "Play some jazz", "How far is the moon?", "Cancel tomorrow's alarm",
        "Translate bread into Danish", "Who wrote this song?", "Sort these files by date",
    )  # fmt: skip
    assert diversity(lines).alarms == ()
