"""The language Sluiceway's services speak: jobs, events, subjects, cards.

Pydantic and the standard library only. Everything here is a frozen value: a message on the bus, a
document a person writes, or a record that gets signed. How the values travel is `shared`'s concern.
"""
