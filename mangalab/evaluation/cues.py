"""Words and phrases by which the rubric knows a tone, a spoiler and a hand-over to a person.

Written on the development half of the labelled replies, plus words that any such list would hold.
"""

import re

PERSON = (
    r"(?:colleague|agents?|staff|supervisor|manager|specialist|expert|human|person|team lead|lead|"
    r"officer|desk|crew|team)"
)
HANDS_OVER = (
    r"\b(?:pass(?:ing)?|hand(?:ing)?|connect(?:ing)?|transfer(?:ring)?|forward(?:ing)?|"
    rf"escalat(?:e|ing)|put(?:ting)? you|fetch|get(?:ting)?|bring(?:ing)?)\b[^.!?]{{0,60}}\b{PERSON}\b",
    r"\b(?:pass|hand|connect|transfer|escalat|forward)\w* (?:you|this|it)\b",
    rf"\b(?:{PERSON}|someone|she|he|one of them)\b[^.!?]{{0,60}}\b(?:will|'ll)\b[^.!?]{{0,20}}"
    r"\b(?:call|ring|phone|write to|contact|reply|join|take over)",
    r"\b(?:takes? over (?:from here|your|this|now)|taking over|has your case|been called in)\b",
    r"\b(?:you'll|you will) (?:get|hear from) (?:a |an )?(?:person|human|call|mr|ms|colleague)",
    rf"\bI(?:'ve| have) (?:asked|alerted|raised|booked|called)\b[^.!?]{{0,80}}\b{PERSON}\b",
    rf"\ba (?:human|{PERSON}) is (?:coming|on)",
    r"\binto this chat\b|担当者|責任者|スタッフ|上席",
)
NEEDLESS = r"\bno need (?:to|for)\b|\bnot necessary\b"
PREMISE = r"\ba (?:boy|girl|man|woman|student|hero|dog|cat) (?:who|that)\b"

OFF_BRAND = (
    # slang
    r"\b(?:lol|lmao|omg|bro|bruh|dude|fam|yo|yup|nope|yeah|duh|ugh+|ur|u|btw|jk|dang|yikes|gonna|"
    r"gotta|wanna|no cap|straight fire|chill|haha\w*|oh my gosh|like,)\b|\bpromise!!",
    # pressure
    r"\b(?:buy (?:it )?now|don't miss|before it's gone|best deal|go go go|trust me|tip jar)\b",
    # rudeness, blame, mockery
    r"\b(?:as i already told you|obviously|just wait|google it|whatever|relax\b|that's life|"
    r"everyone knows|next question|watch your tone|you problem|drama queen|happy now|"
    r"did you maybe|somewhere else|fine, (?:bye|take)|don't be a baby|how very|lucky you|"
    r"are you nuts|seriously\?)",
)
SHOUTS = r"!!|\?!|\?\?|[\U0001F300-\U0001FAFF]|;\)|<3"

EVENT = (
    r"\b(?:dies|died|(?:is|was|gets) (?:killed|murdered|eaten|tortured)|is not alive|kills|eats|"
    r"kill her|kill him|sacrifices|betrays|marries|gives \w+ \w+ up|hair turns|"
    r"turns? out|the twist is|the killer is|is a delusion|the traitor|are all|"
    r"loses (?:his|her|the)|wins the|becomes (?:king|one of|a |the )|comes back|beats\b|"
    r"in the end|the finale|spoiler:)"
)
SILENCE = (
    r"\b(?:won't|will not|rather (?:not|let)|no spoilers|keep (?:quiet|silent)|not a word|"
    r"(?:asked|know) whether)\b"
)


def hands_over(text: str) -> bool:
    """Whether the reply gives the matter to a person now, rather than speaking of people."""
    if re.search(NEEDLESS, text, re.IGNORECASE) and not re.search(HANDS_OVER[3], text):
        return False
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in HANDS_OVER)


def off_brand(text: str) -> str | None:
    """The first words that are not the shop's voice, or None."""
    shout = re.search(SHOUTS, text)
    loud = len(re.findall(r"\b[A-Z]{2,}\b", text)) > 1 or re.search(r"\bNOW\b", text)
    hits = (re.search(pattern, text, re.IGNORECASE) for pattern in OFF_BRAND)
    found = shout or next(filter(None, hits), None)
    return found[0] if found else "capitals" if loud else None


def told(text: str) -> str | None:
    """The first words that tell an event of the plot, outside sentences that refuse to; or None."""
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        found = re.search(EVENT, sentence, re.IGNORECASE)
        kept = re.search(SILENCE, sentence, re.IGNORECASE) or re.search(PREMISE, sentence)
        if found and not kept:
            return found[0]
    return None
