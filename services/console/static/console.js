// Keeps the page's fragment up to date over server-sent events. Without it the pages still work.
"use strict";

const place = document.getElementById("live");
const link = document.getElementById("link");

function say(state, text) {
  link.className = "link " + state;
  if (link.textContent !== text) link.textContent = text;
}

function replace(html) {
  const focused = document.activeElement && place.contains(document.activeElement)
    ? document.activeElement.id : "";
  const scrolls = [...place.querySelectorAll(".scroll, .rail")].map((e) => e.scrollLeft);
  place.innerHTML = html; // rendered and escaped by the server
  place.querySelectorAll(".scroll, .rail").forEach((e, i) => { e.scrollLeft = scrolls[i] || 0; });
  const again = focused && document.getElementById(focused);
  if (again) again.focus({ preventScroll: true });
}

if (place) {
  const source = new EventSource(place.dataset.live);
  source.onopen = () => say("live", "live");
  source.onerror = () => say("lost", "connection lost, trying again");
  source.addEventListener("fragment", (event) => replace(event.data));
  addEventListener("pagehide", () => source.close());

  place.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const verb = form.dataset.verb;
    const question = {
      cancel: "Cancel this run? Training keeps its checkpoint.",
      rollback: "Roll back? The deployment answers as before, and the run ends.",
    }[verb];
    if (question && !confirm(question)) return;
    form.querySelector("button").disabled = true;
    const answer = await fetch("/api" + new URL(form.action).pathname, { method: "POST" });
    if (answer.ok) {
      say("live", verb + " sent");
    } else {
      const body = await answer.json().catch(() => ({}));
      say("lost", body.detail || "the command was not taken");
      form.querySelector("button").disabled = false;
    }
  });
}
