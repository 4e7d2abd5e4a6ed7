"""Everyday sentences that are translated in the tests."""

from __future__ import annotations

ENGLISH = [
    "How are you today?",
    "The train leaves at half past seven tomorrow morning.",
    "Could you please tell me where the nearest pharmacy is?",
    "It has been raining since yesterday afternoon.",
    "I forgot my umbrella at the office.",
    "She bought a new bicycle for her son's birthday.",
    "Don't forget to water the plants while I'm away.",
    "How much does this jacket cost?",
    "If it is sunny, we will have lunch in the garden.",
    "My sister is learning to play the piano.",
]
# What is harder: several sentences, signs, digits, scripts, spaces, and a text far too long.
HARDER = [
    "Mr. Smith went to Washington. He arrived at 3 p.m. on Tuesday!",
    "The price of bread went up 12% last year; I can't believe it's already December 25th, 2023.",
    "Xyzzyq plugh! See https://example.com/path?q=1 😀",
    "Tokyo 東京 is big.",
    "   leading and\ttrailing spaces   \nand a line",
    "ONE TWO THREE",
    "...",
    "",
    "word " * 150,
]
PORTUGUESE = [
    "Como você está hoje?",
    "As crianças estavam brincando no jardim.",
    "Onde fica a estação de trem mais próxima?",
    "Ontem choveu o dia inteiro e ficamos em casa.",
]
EVERYDAY = {"en": ENGLISH + HARDER, "pt": PORTUGUESE}
