from difix3d.schedule import At, Every


def test_every_counts_from_its_start_to_its_stop():
    assert [step for step in range(20) if step in Every(5, start=3, stop=13)] == [3, 8, 13]


def test_period_zero_is_never():
    assert not any(step in Every(0) for step in range(100))


def test_at_names_steps():
    schedule = At(7000, 2000)
    assert 7000 in schedule
    assert 0 not in schedule
    assert list(schedule) == [2000, 7000]
