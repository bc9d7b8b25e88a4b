"""Where everything goes in the picture of the connection.

It is laid out by hand, because no layout program puts the path to ready in one line and keeps labels apart.
"""

import enum
from typing import Final

from sprockets_amqp.states import Closed, Closing, Connecting, State

from .layout import Frame, Route

WIDTH: Final = 1600
HEIGHT: Final = 1086

#: States with substates are as large as their substates require.
PLACES: Final[dict[enum.Enum, Frame]] = {
    State.IDLE: Frame(24, 59, 154, 117),
    Connecting.CALLING: Frame(318, 160, 422, 204),
    Connecting.OPENING_CONNECTION: Frame(318, 62, 510, 114),
    Connecting.RETRYING_NODE: Frame(478, 252, 630, 296),
    Connecting.SETTING_UP: Frame(822, 160, 922, 204),
    Connecting.OPENING_CHANNEL: Frame(1012, 66, 1192, 110),
    Connecting.RETRYING_CHANNEL: Frame(1020, 336, 1192, 380),
    Connecting.CLOSING_CHANNEL: Frame(1084, 252, 1192, 296),
    State.READY: Frame(1354, 59, 1500, 117),
    State.BLOCKED: Frame(1100, 464, 1250, 522),
    Closed.RETRYING: Frame(376, 630, 546, 674),
    Closed.STOPPED: Frame(376, 736, 546, 780),
    Closing.DRAINING: Frame(1350, 640, 1510, 684),
    Closing.PAUSED: Frame(980, 640, 1120, 684),
    Closing.CONFIRMING: Frame(1125, 774, 1315, 818),
    Closing.CLOSING_CONNECTION: Frame(1112, 904, 1328, 948),
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
    (_S.CLOSED, Connecting.OPENING_CONNECTION): Route(((460, 592), (460, 114)), (470, 484)),
    (_S.CLOSED, Connecting.CALLING): Route(((412, 592), (412, 204)), (404, 484), "end"),
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
    (Connecting.SETTING_UP, Connecting.OPENING_CHANNEL): Route(((922, 182), (1018, 182), (1018, 110)), (929, 172)),
    (Connecting.OPENING_CHANNEL, _S.READY): Route(((1192, 88), (1354, 88)), (1281, 77), "middle", up=True),
    # Losing a channel
    (Connecting.OPENING_CHANNEL, Connecting.RETRYING_CHANNEL): Route(((1032, 110), (1032, 336)), (1024, 230), "end"),
    (Connecting.RETRYING_CHANNEL, Connecting.OPENING_CHANNEL): Route(((1052, 336), (1052, 110)), (1060, 225)),
    (Connecting.RETRYING_CHANNEL, Connecting.SETTING_UP): Route(
        ((1020, 358), (872, 358), (872, 204)), (946, 348), "middle", up=True
    ),
    (_S.READY, Connecting.RETRYING_CHANNEL): Route(((1399, 117), (1399, 358), (1192, 358)), (1389, 348), "end"),
    (_S.BLOCKED, Connecting.RETRYING_CHANNEL): Route(((1100, 480), (1072, 480), (1072, 380)), (1082, 434)),
    # Giving up a channel
    (_S.READY, Connecting.CLOSING_CHANNEL): Route(((1382, 117), (1382, 274), (1192, 274)), (1372, 264), "end"),
    (Connecting.CLOSING_CHANNEL, Connecting.OPENING_CHANNEL): Route(((1186, 252), (1186, 110)), (1180, 150), "end"),
    # Blocked
    (Connecting.OPENING_CHANNEL, _S.BLOCKED): Route(((1192, 102), (1240, 102), (1240, 170)), (1250, 142)),
    (_S.READY, _S.BLOCKED): Route(((1416, 117), (1416, 480), (1250, 480)), (1406, 434), "end"),
    (_S.BLOCKED, _S.READY): Route(((1250, 506), (1464, 506), (1464, 117)), (1454, 526), "end"),
    # Losing a connection
    (_S.CONNECTING, Closed.RETRYING): Route(((316, 396), (316, 644), (376, 644)), (306, 510), "end"),
    (_S.BLOCKED, Closed.RETRYING): Route(
        ((1100, 508), (920, 508), (920, 652), (546, 652)), (990, 498), "middle", up=True
    ),
    (_S.READY, Closed.RETRYING): Route(
        ((1500, 78), (1570, 78), (1570, 990), (316, 990), (316, 660), (376, 660)), (840, 980), "middle", up=True
    ),
    # Down
    (_S.READY, Closing.DRAINING): Route(((1500, 98), (1544, 98), (1544, 652), (1510, 652)), (1534, 434), "end"),
    (_S.BLOCKED, Closing.PAUSED): Route(
        ((1110, 522), (1110, 574), (940, 574), (940, 662), (980, 662)), (1100, 564), "end"
    ),
    (Closing.DRAINING, Closing.PAUSED): Route(((1350, 652), (1120, 652)), (1235, 644), "middle"),
    (Closing.PAUSED, Closing.DRAINING): Route(((1120, 672), (1350, 672)), (1235, 690), "middle"),
    (Closing.DRAINING, Closing.CONFIRMING): Route(((1400, 684), (1400, 790), (1315, 790)), (1390, 734), "end"),
    (Closing.PAUSED, Closing.CONFIRMING): Route(((1060, 684), (1060, 790), (1125, 790)), (1070, 734)),
    (Closing.DRAINING, Closing.CLOSING_CONNECTION): Route(((1470, 684), (1470, 934), (1328, 934)), (1460, 884), "end"),
    (Closing.PAUSED, Closing.CLOSING_CONNECTION): Route(((1004, 684), (1004, 934), (1112, 934)), (1014, 854)),
    (Closing.CONFIRMING, Closing.CLOSING_CONNECTION): Route(((1220, 818), (1220, 904)), (1230, 846)),
    (_S.CLOSING, Closed.STOPPED): Route(((964, 758), (546, 758)), (864, 778), "middle"),
    (_S.IDLE, Closed.STOPPED): Route(((89, 117), (89, 208)), (99, 168)),
    (_S.CONNECTING, Closed.STOPPED): Route(((302, 225), (154, 225)), (228, 215), "middle"),
    (Closed.RETRYING, Closed.STOPPED): Route(((461, 674), (461, 736)), (471, 710)),
}
