from agent.node.pressure import NodePressure, Pressure


def test_only_a_change_is_told() -> None:
    told: list[Pressure] = []
    pressure = NodePressure()
    pressure.notify(lambda: told.append(pressure.now))
    for shown in (Pressure(), Pressure(disk=True), Pressure(disk=True), Pressure()):
        pressure.show(shown)
    assert told == [Pressure(disk=True), Pressure()]


def test_conditions_are_named_in_the_order_of_the_nodes_own() -> None:
    assert Pressure().conditions == ()
    assert Pressure(memory=True, disk=True, pids=True).conditions == ("MemoryPressure", "DiskPressure", "PIDPressure")
