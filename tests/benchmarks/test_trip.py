"""The way of one metered request through the package stays short."""

from benchmarks.trip import measure_trip


async def test_a_metered_request_passes_few_rooms(valkey_url: str) -> None:
    """A JSON request passes at most 38 files and 140 calls, 13 of them at once on the stack, the link included."""
    trip = await measure_trip(valkey_url)
    calls = "\n".join(f"{count:3} {name}" for name, count in trip.functions.items())
    assert (trip.files <= 38, trip.calls <= 140, trip.frames <= 13) == (True, True, True), f"{trip[:4]}\n{calls}"
