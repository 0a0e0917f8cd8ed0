import numpy as np

from edgecxr.films.objections import of_image


def reasons(image: np.ndarray, shape: tuple[int, int] = (2000, 1800)) -> list[str]:
    return [objection.reason for objection in of_image(image.astype(np.uint8), shape)]


def test_what_pixels_say_against_a_film() -> None:
    ramp = np.tile(np.linspace(20, 230, 224), (224, 1))
    assert reasons(ramp) == []
    assert reasons(ramp, (64, 300)) == [] and reasons(ramp, (300, 63)) == ["tiny"]
    # A film behind a wide collimator is one still, with three quarters black it is not.
    for share, expected in ((0.7, []), (0.8, ["saturated"])):
        collimated = ramp.copy()
        collimated[: round(224 * share)] = 0
        assert reasons(collimated) == expected
    assert reasons(np.where(ramp > 128, 255, 0)) == ["saturated"]
    assert reasons(100 + ramp / 16) == ["blank"], "a range of 13 grey levels"
    assert reasons(100 + ramp / 8) == []
    marked = np.full((224, 224), 7.0)
    marked[:20, :20] = 255
    assert reasons(marked) == ["blank"], "but for a mark of less than 1 %"
