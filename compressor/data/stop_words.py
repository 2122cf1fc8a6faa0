"""English words that carry grammar rather than content, and what a tokenizer leaves of `don't`.

Replacing `not`, `but` or `she` changes what a sentence says or breaks it, so methods that replace
words leave these alone.
"""

from __future__ import annotations

_WORDS = """
a an the this that these those
i me my mine myself we us our ours ourselves you your yours yourself yourselves
he him his himself she her hers herself it its itself they them their theirs themselves
who whom whose which what when where why how
am is are was were be been being do does did doing done have has had having
can could may might must shall should will would ought cannot
and or nor but if then else because as while until than though although unless whether so
not no never neither none nothing nobody nowhere
about above across after against along among around at before behind below beneath beside
between beyond by down during except for from in inside into like near of off on onto out
outside over past per since through throughout to toward towards under up upon via with within
without
all any both each either every few more most much many other others own same several some such
again also already even ever here just now once only still there too very yet
s t d m ll re ve don didn doesn isn aren wasn weren hasn haven hadn won wouldn couldn shouldn
mustn mightn needn shan ain
"""
STOP_WORDS = frozenset(_WORDS.split())
