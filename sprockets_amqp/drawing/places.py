"""Where everything goes in the picture of the connection.

It is laid out by hand, because no layout program puts the path to ready in one line and keeps labels apart.
"""

import enum
from typing import Final

from sprockets_amqp.states import Closed, Closing, Connecting, State

from .layout import Frame, Route

WIDTH: Final = 1600
HEIGHT: Final = 1002

#: States with substates are as large as their substates require.
PLACES: Final[dict[enum.Enum, Frame]] = {
    State.IDLE: Frame(24, 59, 154, 117),
    Connecting.CALLING: Frame(318, 160, 422, 204),
    Connecting.OPENING_CONNECTION: Frame(318, 62, 510, 114),
    Connecting.RETRYING_NODE: Frame(478, 252, 630, 296),
    Connecting.SETTING_UP: Frame(822, 160, 922, 204),
    Connecting.OPENING_CHANNEL: Frame(1012, 66, 1192, 110),
    Connecting.RETRYING_CHANNEL: Frame(1032, 252, 1192, 296),
    State.READY: Frame(1354, 59, 1500, 117),
    State.BLOCKED: Frame(1100, 380, 1250, 438),
    Closed.RETRYING: Frame(376, 546, 546, 590),
    Closed.STOPPED: Frame(376, 652, 546, 696),
    Closing.DRAINING: Frame(1350, 556, 1510, 600),
    Closing.PAUSED: Frame(980, 556, 1120, 600),
    Closing.CONFIRMING: Frame(1125, 690, 1315, 734),
    Closing.CLOSING_CONNECTION: Frame(1112, 820, 1328, 864),
}

#: States that are drawn a second time, for arrows that could not reach them without crossing others.
ECHOES: Final[dict[enum.Enum, Frame]] = {
    Closed.STOPPED: Frame(24, 208, 154, 242),
    State.BLOCKED: Frame(1224, 170, 1314, 204),
}

_S = State

ROUTES: Final[dict[tuple[enum.Enum, enum.Enum], Route]] = {
    # Up
    (_S.IDLE, Connecting.OPENING_CONNECTION): Route(((154, 88), (318, 88)), (228, 77), "middle", up=True),
    (_S.IDLE, Connecting.CALLING): Route(((154, 106), (180, 106), (180, 182), (318, 182)), (190, 152)),
    (_S.CLOSED, Connecting.OPENING_CONNECTION): Route(((460, 508), (460, 114)), (470, 400)),
    (_S.CLOSED, Connecting.CALLING): Route(((412, 508), (412, 204)), (404, 400), "end"),
    (Connecting.CALLING, Connecting.OPENING_CONNECTION): Route(((334, 160), (334, 114)), (342, 145)),
    (Connecting.OPENING_CONNECTION, Connecting.OPENING_CHANNEL): Route(
        ((510, 88), (1012, 88)), (752, 77), "middle", up=True
    ),
    (Connecting.OPENING_CONNECTION, Connecting.SETTING_UP): Route(
        ((510, 96), (856, 96), (856, 160)), (846, 119), "end"
    ),
    # Trying the node again
    (Connecting.OPENING_CONNECTION, Connecting.RETRYING_NODE): Route(((490, 114), (490, 252)), (498, 160)),
    (Connecting.RETRYING_NODE, Connecting.OPENING_CONNECTION): Route(
        ((630, 274), (690, 274), (690, 104), (510, 104)), (680, 232), "end"
    ),
    (Connecting.SETTING_UP, Connecting.OPENING_CHANNEL): Route(((922, 182), (1024, 182), (1024, 110)), (930, 172)),
    (Connecting.OPENING_CHANNEL, _S.READY): Route(((1192, 88), (1354, 88)), (1281, 77), "middle", up=True),
    # Losing a channel
    (Connecting.OPENING_CHANNEL, Connecting.RETRYING_CHANNEL): Route(((1040, 110), (1040, 252)), (1048, 140)),
    (Connecting.RETRYING_CHANNEL, Connecting.OPENING_CHANNEL): Route(((1178, 252), (1178, 110)), (1170, 225), "end"),
    (Connecting.RETRYING_CHANNEL, Connecting.SETTING_UP): Route(
        ((1032, 274), (872, 274), (872, 204)), (952, 264), "middle", up=True
    ),
    (_S.READY, Connecting.RETRYING_CHANNEL): Route(((1382, 117), (1382, 274), (1192, 274)), (1372, 264), "end"),
    (_S.BLOCKED, Connecting.RETRYING_CHANNEL): Route(((1100, 396), (1072, 396), (1072, 296)), (1082, 350)),
    # Blocked
    (Connecting.OPENING_CHANNEL, _S.BLOCKED): Route(((1192, 102), (1240, 102), (1240, 170)), (1250, 142)),
    (_S.READY, _S.BLOCKED): Route(((1416, 117), (1416, 396), (1250, 396)), (1406, 350), "end"),
    (_S.BLOCKED, _S.READY): Route(((1250, 422), (1464, 422), (1464, 117)), (1454, 442), "end"),
    # Losing a connection
    (_S.CONNECTING, Closed.RETRYING): Route(((316, 312), (316, 560), (376, 560)), (306, 426), "end"),
    (_S.BLOCKED, Closed.RETRYING): Route(
        ((1100, 424), (920, 424), (920, 568), (546, 568)), (995, 414), "middle", up=True
    ),
    (_S.READY, Closed.RETRYING): Route(
        ((1500, 78), (1570, 78), (1570, 906), (316, 906), (316, 576), (376, 576)), (840, 896), "middle", up=True
    ),
    # Down
    (_S.READY, Closing.DRAINING): Route(((1500, 98), (1544, 98), (1544, 568), (1510, 568)), (1534, 350), "end"),
    (_S.BLOCKED, Closing.PAUSED): Route(
        ((1110, 438), (1110, 490), (940, 490), (940, 578), (980, 578)), (1100, 480), "end"
    ),
    (Closing.DRAINING, Closing.PAUSED): Route(((1350, 568), (1120, 568)), (1235, 560), "middle"),
    (Closing.PAUSED, Closing.DRAINING): Route(((1120, 588), (1350, 588)), (1235, 606), "middle"),
    (Closing.DRAINING, Closing.CONFIRMING): Route(((1400, 600), (1400, 706), (1315, 706)), (1390, 650), "end"),
    (Closing.PAUSED, Closing.CONFIRMING): Route(((1060, 600), (1060, 706), (1125, 706)), (1070, 650)),
    (Closing.DRAINING, Closing.CLOSING_CONNECTION): Route(((1470, 600), (1470, 850), (1328, 850)), (1460, 800), "end"),
    (Closing.PAUSED, Closing.CLOSING_CONNECTION): Route(((1004, 600), (1004, 850), (1112, 850)), (1014, 770)),
    (Closing.CONFIRMING, Closing.CLOSING_CONNECTION): Route(((1220, 734), (1220, 820)), (1230, 762)),
    (_S.CLOSING, Closed.STOPPED): Route(((964, 674), (546, 674)), (864, 694), "middle"),
    (_S.IDLE, Closed.STOPPED): Route(((89, 117), (89, 208)), (99, 168)),
    (_S.CONNECTING, Closed.STOPPED): Route(((302, 225), (154, 225)), (228, 215), "middle"),
    (Closed.RETRYING, Closed.STOPPED): Route(((461, 590), (461, 652)), (471, 626)),
}
