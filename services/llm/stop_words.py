"""Words of a question that say how it asks, not what about."""

from __future__ import annotations

from typing import Final

_ENGLISH = """
a about according after all also am an and any are as at be been before being but by can could did do does doing done
else ever every explain for from get give had has have having he her here his how i if in into is it its just kind
like list many may me mean means might more most much must my need no not of on one only or other our out over per
please prior say shall she should so some such tell than that the their them then there these they this those to too
under up us use used using very want was way we were what what's when where whether which while who whom whose why
will with would you your
"""
# The letter yo is written as ye, as `stems` does.
_RUSSIAN = """
а без более бы был была были было быть в вам вас ваш весь во вот все всего всех вы где да для до его ее если есть еще
же за зачем и из или им их к как какая какие каким каких какого какое какой какую когда кого кому которая которое
которые который кто куда ли лучше между меня мне многие может можно мой мы на надо нам нас наш не него нее нет ни них
но ну нужно о об обо объясни один однако он она они оно от откуда перед по под пожалуйста после почему при про разве
расскажи с сам свой себя скажи сколько следует со так такая также такие такое такой там те тем то тогда того тоже
только том тот ту тут ты у уже чего чей чем через что чтобы чья эта эти это этого этой этом этот эту я является
"""

STOP_WORDS: Final = frozenset(f"{_ENGLISH} {_RUSSIAN}".split())
