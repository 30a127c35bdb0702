"""Texts for the tests of tokenizers: one to build from, and strategies that draw others."""

from hypothesis import strategies as st

TEXT = "The cat sat on the mat.\nThe dog, too, sat on the mat!\n\n  ünïcode ça va ?\n" * 5
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
spaced_text = st.text(st.sampled_from("ab \n\té\u2028"), max_size=60)
