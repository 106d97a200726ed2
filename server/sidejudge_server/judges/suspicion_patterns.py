"""Patterns and words of `judges.suspicion`: how text speaks to a judge, and how it hides that."""

from __future__ import annotations

import re

__all__: list[str] = []


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


JUDGE = r"(?:judge|grader|evaluator|reviewer|assessor|examiner|scorer|rater|llm|ai model|language model)"
PRAISE = (
    r"(?:yes|pass(?:ed|es)?|approved?|accept(?:ed|able)?|correct|safe|relevant|faithful|minimal|perfect|excellent"
    r"|full marks|(?:top|highest|maximum|best|full) (?:grade|score|mark|marks|rating))"
)
TOP = r"(?:5|five|10|ten|100 ?%|1\.0)"
QUOTES = r"[\"'`*\u201c\u2018]*"

DISMISS = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass|skip|set aside|do not (?:follow|apply|use|judge|evaluate|read))\b"
    r"[^.\n]{0,60}\b(?:instruction|prompt|rule|guideline|criteri|rubric|above|previous|prior|earlier|everything|task"
    r"|question|guard|source|check)",
    re.IGNORECASE,
)
# Numbers are dictated by fewer verbs: code returns and prints them.
DICTATE = re.compile(
    rf"\b(?:answer|respond|reply|output|say|return|write|print|begin|start|give|grade|rate|score|mark|label|classify"
    rf"|judge|treat|count|rule|declare|choose|select|vote)\b[^.\n]{{0,50}}?\b{QUOTES}{PRAISE}\b"
    rf"|\b(?:answer|respond|reply|output|say|give|grade|rate|rated|score|mark)\b[^.\n]{{0,30}}?{QUOTES}\b{TOP}\b",
    re.IGNORECASE,
)
ADDRESS = re.compile(
    rf"\b(?:note|message|attention|memo|notice|instructions?|reminder|word|request)\b[^.\n]{{0,20}}\b(?:to|for)\b"
    rf"[^.\n]{{0,20}}\b{JUDGE}"
    rf"|\b(?:dear|hey|hello|hi|attention|as (?:the|a|an)|you,? (?:the|as)|if you are (?:the|a|an)) {JUDGE}",
    re.IGNORECASE,
)
REASSIGN = re.compile(
    r"\b(?:you are (?:now|no longer)|from now on|new (?:task|role|instructions?|rules?)\b|your (?:new|real|only) (?:task"
    r"|job|role|instructions?))"
    r"|\b(?:system|developer|admin(?:istrator)?) (?:override|message|prompt|mode|note|notice|instruction)",
    re.IGNORECASE,
)
TURN = re.compile(
    r"^[ \t>#*\-/\"']*(?:system|assistant|human|user|developer|instructions?|question|tool)[ \t*]*(?::|=>)(?!//)"
    r"|^\s*#{2,}\s*(?:system|instruction|response|assistant|answer|input|end)\b"
    r"|\b(?:end|begin|start) of (?:the )?(?:artifact|context|material|input|prompt|text|output|document|data|ground truth)"
    r"|-{3,}\s*(?:end|begin|start)\b",
    re.IGNORECASE | re.MULTILINE,
)
VERDICT = re.compile(
    r"\b(?:verdict|answer|judge?ment|grade|score|rating|evaluation|result|label|decision|assessment)\b[\"'*` ]{0,3}"
    rf"(?:[:=]|(?:is|was)\b\s*[:=]?)\s*{QUOTES}(?:{PRAISE}|{TOP})\b",
    re.IGNORECASE,
)
PLEA = re.compile(
    r"\b(?:i beg|begging|please,? (?:please|just|pass|approve|accept|give|say|mark|be kind|have mercy|don'?t fail)|have mercy"
    r"|(?:lose|lost|losing) (?:my|his|her|our|their) (?:job|home|house|visa|life)|be(?:en)? fired|my (?:child|daughter|son"
    r"|mother|family)|depends? on (?:this|your|you)|last chance|suicid|will die|(?:already|been|was) (?:verified|approved"
    r"|reviewed|checked|certified|audited|validated|graded)|(?:verified|approved|certified|signed off|endorsed|audited"
    r"|authori[sz]ed) by|on behalf of|by order of|(?:safety|ethics|quality|review|grading) (?:committee|board|panel|team)"
    r"|expert panel|(?:professor|chief \w+|ceo)\b[^.\n]{0,50}\b(?:certified|signed|confirmed|guarantees?)|policy requires"
    r"|openai|anthropic|google deepmind|your (?:developer|creator|maker|owner|operator)s?)\b",
    re.IGNORECASE,
)
# The commonest ways to say "ignore", "answer" and "yes" to a judge elsewhere.
ELSEWHERE = re.compile(
    r"\b(?:ignorier\w*|antworte\w*|bewerte\w*|vergiss|ignore[zr]|r\u00e9pond\w*|oublie\w*|ignora\w*|responde|olvida\w*"
    r"|rispond\w*|dimentica\w*|esque\u00e7a\w*|antwoord\w*|negeer\w*|zignoruj|odpowiedz|ignorera|svara)\b[^.\n]{0,60}"
    r"\b(?:ja|yes|oui|s[i\u00ed\u00ec]|sim|tak|pass|5|anweisung\w*|instruction\w*|instruccion\w*|istruzion\w*|instru\u00e7\w*"
    r"|instructies|instrukcj\w*|instruktion\w*|bestanden|r\u00e8gles|reglas|regole|regras|regels)\b"
    r"|\u0438\u0433\u043d\u043e\u0440\u0438\u0440|\u043e\u0442\u0432\u0435\u0442\u044c|\u0437\u0430\u0431\u0443\u0434\u044c"
    r"|\u5ffd\u7565|\u5ffd\u89c6|\u7121\u8996|\u7121\u8996|\u8bf7\u56de\u7b54|\u56de\u7b54\u662f|\u56de\u7b54[\u201c\u300c\"]"
    r"|\u7121\u8996|\u7121\u8996\u3057|\u7b54\u3048\u3066|\u306f\u3044\u3068|\ubb34\uc2dc|\ub300\ub2f5|\u062a\u062c\u0627\u0647\u0644"
    r"|\u0623\u062c\u0628|\u05d4\u05ea\u05e2\u05dc\u05dd|\u0928\u091c\u093c\u0930\u0905\u0902\u0926\u093e\u091c|\u0909\u0924\u094d\u0924\u0930",
    re.IGNORECASE,
)
HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
MIXED = re.compile(
    "[A-Za-z][\u0370-\u03ff\u0400-\u04ff]|[\u0370-\u03ff\u0400-\u04ff][A-Za-z]|[\uff21-\uff3a\uff41-\uff5a]{3}"
    "|[\U0001d400-\U0001d7ff]{3}|[\u24b6-\u24e9]{3}"
)
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,4000}={0,2}")
HEX = re.compile(r"(?:[0-9a-fA-F]{2}){16,2000}")
LEET = str.maketrans("4310$57@!|", "aeiosstaii")
ROT13 = str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")
PUNCTUATION = str.maketrans(dict.fromkeys("\"'`*.,:;!?()[]{}<>=/\\|-\u201c\u201d", " "))

# Words without which a pattern cannot match: looking them up takes a twentieth of the search.
DISMISSING = _words("""ignore disregard forget override bypass skip aside not""")
DICTATING = _words(
    """answer respond reply output say return write print begin start give grade rate score mark
    label classify judge treat count rule declare choose select vote"""
)
PRAISING = _words(
    """yes pass passes passed 5 five 10 ten 100 100% 1 approve approved accept acceptable accepted
    correct safe relevant faithful minimal perfect excellent full top highest maximum best"""
)
JUDGING = _words(
    """judge grader evaluator reviewer assessor examiner scorer rater llm model"""
)
REASSIGNING = _words("""system developer admin administrator""")
SPEAKING = _words(
    """system assistant human user developer instruction instructions question tool response answer
    input end begin start"""
)
CLAIMING = _words(
    """verdict answer judgment judgement grade score rating evaluation result label decision
    assessment"""
)
PLEADING = _words(
    """beg begging please mercy lose lost losing fired child daughter son mother family depends
    depend chance suicide suicidal die verified approved reviewed checked certified audited
    validated graded signed endorsed authorized authorised chief ceo professor nobel panel
    committee openai anthropic deepmind developer developers creator creators maker makers owner
    owners operator operators"""
)
FOREIGN = tuple(
    _words(
        """ignor antwort bewert vergiss r\u00e9pond oublie respond olvid rispond dimentic esque\u00e7 negeer
        zignor odpowied svara"""
    )
)
REASSIGNING_PHRASES = (
    "you are now",
    "you are no longer",
    "from now on",
    "new task",
    "new role",
    "new instruction",
    "new rule",
    "your new",
    "your real",
    "your only",
)
PLEADING_PHRASES = ("on behalf of", "by order of", "policy requires")
GIVEAWAYS = _words(
    """ignore disregard answer verdict instructions instruction respond grade score pass judge
    previous"""
)
FEWEST_HIDDEN = 3
LONG_WORD = 24
LONG, REPETITIVE = 1_500, 0.12
