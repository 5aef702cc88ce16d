"""URIs of sinks and positions with bytes that are not text, null bytes or huge numbers are refused with the documented error."""

import os
import re

import pytest

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.sinks.registry import check_sink
from spatialnet_edge.sources.pose import check_pose


@pytest.mark.fault(83)
@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (b"mqtt://broker/fleet/\xe9", "not UTF-8 text"),
        (b"udp://ground\xff:14600", "not UTF-8 text"),
        (b"mqtt://broker/fleet/#", "'#' is not allowed"),
        (b"mqtts://broker/fleet?cafile=%00", "'cafile' contains a null byte"),
        (b"mavlink:udpout:ground:14550?key_file=a%00b", "'key_file' contains a null byte"),
        (b"udp://ground:1?budget=0x1" + 300 * b"0", "not a number, or too large"),
        (b"jsonl:results.jsonl?budget=0x1" + 300 * b"0", "not a number, or too large"),
        (b"ccsds+udp://ground:1?apid=0x1" + 5000 * b"0", "not a number, or too large"),
        (b"unix:/run/x.sock?budget=1e999", "must not be negative, infinite or nan"),
    ],
)
def test_a_sink_with_bytes_that_are_no_text_or_with_a_huge_number_is_refused(uri: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as refused:
        check_sink(os.fsdecode(uri))
    assert len(str(refused.value)) < 300


@pytest.mark.fault(83)
@pytest.mark.parametrize("option", ["key_file=a%00b", "baud=" + 5000 * "1", "system=%FF"])
def test_a_position_with_a_null_byte_or_a_huge_number_is_refused(option: str) -> None:
    with pytest.raises(UsageError):
        check_pose(f"mavlink:udpin:0.0.0.0:14550?{option}")
