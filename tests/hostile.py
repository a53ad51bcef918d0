"""Names that somebody could give to a run, a class, a file or a process, to no good end."""

import unicodedata

NAMES = [
    # What a terminal obeys.
    "\x1b]52;c;aGk=\x07",
    "\x1b]0;title\x1b\\",
    "\x1b[2J\x1b[H",
    "\x1b[31mred\x1b[0m",
    "\x1bPq#0;2;0;0;0\x1b\\",
    "\x1b[6n",
    "\x9b2J",
    "\x9d52;c;aGk=\x9c",
    "\x90q\x9c",
    "bell\x07\x08\x08\x7f",
    "shift\x0e\x0f",
    # What reorders or hides.
    "evil\u202egnp.exe",
    "\u202a\u202b\u202d\u202c",
    "\u2066\u2067\u2068\u2069",
    "\u200e\u200f\u061c",
    "zero\u200bwidth\u200c\u200d\u2060\ufeff",
    "\U000e0041\U000e0042",
    "\u00adsoft\u00adhyphen",
    "\ufff9note\ufffa\ufffb",
    # What breaks a line.
    "one\ntwo",
    "one\r\ntwo\rthree",
    "tab\tand\vand\f",
    "line\u2028paragraph\u2029next\x85",
    "\x1c\x1d\x1e\x1f",
    "nul\x00byte",
    "  blank  on  both  sides  ",
    "",
    # What rich reads.
    "[/]",
    "[red]x[/red]",
    "[link=http://x]y[/link]",
    ":boom: [bold",
    # What markdown and HTML read.
    "a | b\n| forged | **100.0** (5) |",
    "`code` ~~gone~~ *so* _so_",
    "![x](http://example.invalid/x.png)",
    "[a](javascript:alert(1)) <http://example.invalid>",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"></td><td style='x'>&amp;&#x27;",
    "--><!--",
    "]]></style>",
    # What LaTeX reads.
    "\\input{/etc/passwd}",
    "\\write18{id} \\\\ \\hline",
    "$x$ 50% a&b #1 a_b^c ~ {}",
    "[2cm] * \\end{tabular}",
    "% the rest of the line is gone",
    # What a spreadsheet calculates.
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    '"=1",a;b',
    # What SQL and shells read.
    "'; drop table runs; --",
    '" or ""="',
    "$(id) `id` ; id & id > id",
    # What could be a path.
    "../../../../outside",
    "/outside",
    "C:\\outside",
    "..\\..\\outside",
    "a/b/../../../outside",
    # What is long, wide or foreign.
    "x" * 10_000,
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea e\u0301",
    "z" + "\u0335\u0321\u035b" * 30,
    "\u6570\u636e" * 60,
    "\ue000\U0010ffff\u0378",
]

STEERING = {c for c in map(chr, range(0x20)) if c != "\n"} | {chr(c) for c in range(0x7F, 0xA0)}
"""What no output may hold: C0 but the end of a line, DEL and C1."""


def steering(text: str) -> set[str]:
    """The characters of a text that steer a terminal, reorder a line, or hide."""
    return {c for c in text if c in STEERING or unicodedata.category(c) in {"Cf", "Cs", "Zl", "Zp"}}
