"""Rewriting by regular expressions: RE2's meaning of every match, and only patterns that both engines read alike."""

from __future__ import annotations

import pytest

from lbcore import InvalidSetting, RegexRewrite


@pytest.mark.parametrize(
    ("pattern", "substitution", "value", "expected"),
    [
        ("b+", "x", "abbcb", "axcx"),
        ("b*", "-", "abbc", "-a-c-"),  # not -a--c-: an empty match right after a match is skipped
        ("|b", "-", "bb", "-b-b-"),  # an empty match is not retried as a longer one
        ("^", "-", "aa", "-aa"),
        ("$", "-", "aa", "aa-"),
        (r"\b", "|", "ab c", "|ab| |c|"),
        (".", "-", "é", "--"),  # two bytes
        (r"\xc3\xa9", "é-", "aé", "aé-"),
        ("x*", "-", "", "-"),
        (r"(a)|(b)", r"[\1\2]", "ab", "[a][b]"),  # a group that took no part is empty
        (r"(?P<first>\w)\w*", r"\1\0\\", "ab", "aab\\"),
        ("(?i)A", "x", "aA", "xx"),
        (r"\d", "x", "1٣", "x٣"),  # digits are ASCII
    ],
)
def test_every_match_is_replaced_as_re2_does(pattern: str, substitution: str, value: str, expected: str) -> None:
    assert RegexRewrite(pattern, substitution).apply(value.encode()).decode() == expected


def test_bytes_that_are_not_utf8_pass_through() -> None:
    assert RegexRewrite("a", "b").apply(b"a\xffa") == b"b\xffb"


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?:a|b)+?c{2,3}?d{4,}[^]a-z\]]$",
        r"(?i-s:a)(?P<n>.)",
        r"(?is)a",
        r"\.\-\_\/\@\x41\t[\d\-\.]",
        "a{b}",
        "a{1000}",
        "[a|b&~-]",
    ],
)
def test_what_both_engines_read_alike_is_accepted(pattern: str) -> None:
    assert RegexRewrite(pattern).pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "(?=a)",
            r"flags i, m, s: RE2 knows no lookaround or back reference, found '\(\?' at character 1",
        ),
        ("(?<!a)b", "RE2 knows no lookaround"),
        ("(?P<n>a)(?P=n)", "RE2 knows no .*back reference, found '\\(\\?' at character 9"),
        ("(?>a)", "RE2 knows no"),
        ("(?#a)", "RE2 knows no"),
        ("(?x)a b", "RE2 knows no"),
        ("a(?i)b", "expected flags for the whole pattern at its start"),
        (r"(a)\1", r"expected an escape that RE2 and Python share"),
        (r"a\Z", "expected an escape"),
        (r"a\z", "expected an escape"),
        (r"\B", "expected an escape"),
        (r"\pL", "expected an escape"),
        (r"[\b]", "expected an escape that RE2 and Python share in a set"),
        ("[[:alpha:]]", "expected no set inside a set"),
        ("[a--b]", "expected no set inside a set"),
        ("a++", "expected .* lazy at most"),
        ("a{2}+", "expected .* lazy at most"),
        ("a{,3}", "expected .* lazy at most"),
        ("a{1001}", "expected at most 1000 repetitions"),
        ("a{1" + "0" * 5000 + "}", "expected at most 1000 repetitions"),
        ("(a", "expected a regular expression: missing \\)"),
        ("[a", "expected a regular expression: unterminated character set"),
        ("a**", "expected a regular expression: multiple repeat"),
        ("a\\", "expected a regular expression: bad escape"),
        (3, "pattern 3: expected text"),
        ("", "pattern '': expected a regular expression of ASCII characters, at least one"),
        ("é", "pattern 'é': expected a regular expression of ASCII"),
    ],
)
def test_a_pattern_that_re2_refuses_or_reads_otherwise_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        RegexRewrite(pattern)


@pytest.mark.parametrize("substitution", [r"\2", r"\a", "a\\", r"\\\9"])
def test_a_substitution_may_only_name_groups_that_the_pattern_has(substitution: str) -> None:
    with pytest.raises(InvalidSetting, match=r"expected \\0 to \\1, the groups of the pattern, or"):
        RegexRewrite("(a)", substitution)
