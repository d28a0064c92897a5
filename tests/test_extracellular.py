"""Electrodes and potentials: where contacts are, and what they see of a neuron, against closed forms and LFPy."""

from dataclasses import replace

import numpy as np
import pytest
from lfpykit import CellGeometry
from probeinterface import Probe, generate_linear_probe, generate_multi_columns_probe, generate_tetrode

from spikeinterface_simsort.simulation.bank import NeuronCurrents
from spikeinterface_simsort.simulation.electrodes import LAYOUTS, Contacts, make_contacts
from spikeinterface_simsort.simulation.extracellular import CONDUCTIVITY, contact_field, lead_field, random_rotation
from spikeinterface_simsort.simulation.probes import contacts_of_probe, probe_of_contacts
from spikeinterface_simsort.simulation.trials import bundled_bank

SOURCES = ("line", "point", "soma_sphere")
TILTED = np.array([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8], [1.0, 0.0, 0.0], [-0.36, 0.48, -0.8]])


@pytest.fixture(scope="module")
def neuron() -> NeuronCurrents:
    return next(neuron for neuron in bundled_bank() if neuron.name.startswith("pyramidal"))


@pytest.fixture(scope="module")
def ball(neuron: NeuronCurrents) -> NeuronCurrents:
    """A soma of 20 um and nothing else."""
    return replace(
        neuron,
        seg_start=np.array([[0.0, 0.0, -10.0]]),
        seg_end=np.array([[0.0, 0.0, 10.0]]),
        seg_diam=np.array([20.0]),
        soma=0,
    )


@pytest.fixture
def tilted() -> Contacts:
    """Four contacts in space, each facing elsewhere."""
    positions = np.array([[-30.0, 0.0, 0.0], [30.0, 10.0, 5.0], [0.0, -30.0, -20.0], [0.0, 20.0, 15.0]])
    return Contacts(positions, 7.0, TILTED)


def point_potential(distance_um: np.ndarray, *, conductivity: float = CONDUCTIVITY) -> np.ndarray:
    """Of 1 nA, in uV: 1 nA at 1 um in a medium of 1 S/m gives 1 mV / (4 pi)."""
    return 1000.0 / (4 * np.pi * conductivity * np.asarray(distance_um))


# Layouts


@pytest.mark.parametrize(
    ("layout", "count"), [("square", 4), ("diamond", 4), ("stereotrode", 2), ("single", 1), ("linear", 16)]
)
def test_number_of_contacts(layout: str, count: int) -> None:
    assert len(make_contacts(layout=layout)) == count


def test_every_layout_is_tested() -> None:
    assert set(LAYOUTS) == {"square", "diamond", "stereotrode", "single", "linear"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_centred_in_the_plane(layout: str) -> None:
    contacts = make_contacts(layout=layout, spacing_um=23.0)
    np.testing.assert_allclose(contacts.positions.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_array_equal(contacts.positions[:, 2], 0.0)
    np.testing.assert_array_equal(np.abs(contacts.normals), np.tile([0.0, 0.0, 1.0], (len(contacts), 1)))


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "single"])
def test_nearest_contacts_are_one_spacing_apart(layout: str) -> None:
    positions = make_contacts(layout=layout, spacing_um=23.0).positions
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(distance.min(axis=1), 23.0)


@pytest.mark.parametrize("num_channels", [1, 2, 7, 32])
def test_linear_probe_runs_along_y(num_channels: int) -> None:
    positions = make_contacts(layout="linear", num_channels=num_channels, spacing_um=25.0).positions
    assert positions.shape == (num_channels, 3)
    np.testing.assert_array_equal(positions[:, 0], 0.0)
    np.testing.assert_allclose(np.diff(positions[:, 1]), 25.0)


def test_linear_probe_without_channels() -> None:
    with pytest.raises(ValueError, match="1 channel or more, not 0"):
        make_contacts(layout="linear", num_channels=0)


@pytest.mark.parametrize("layout", ["square", "diamond", "stereotrode", "single"])
def test_number_of_channels_is_for_linear_probes_alone(layout: str) -> None:
    contacts, given = make_contacts(layout=layout), make_contacts(layout=layout, num_channels=3)
    np.testing.assert_array_equal(contacts.positions, given.positions)


@pytest.mark.parametrize(
    ("positions", "radius_um", "normals", "message"),
    [
        (np.zeros((4, 2)), 5.0, np.zeros((4, 2)), "positions"),
        (np.zeros((0, 3)), 5.0, np.zeros((0, 3)), "positions"),
        (np.zeros(3), 5.0, np.zeros(3), "positions"),
        (np.zeros((4, 3)), 5.0, np.zeros((3, 3)), "one normal for each"),
        (np.zeros((4, 3)), -1.0, np.zeros((4, 3)), "radius_um must be 0 or more, not -1"),
        (np.zeros((4, 3)), np.nan, np.zeros((4, 3)), "radius_um"),
        (np.zeros((4, 3)), np.inf, np.zeros((4, 3)), "radius_um"),
    ],
)
def test_bad_contacts(positions: np.ndarray, radius_um: float, normals: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Contacts(positions, radius_um, normals)


# Points on the contacts


@pytest.mark.parametrize("num_points", [2, 8, 50])
def test_surface_points_lie_on_the_disc(tilted: Contacts, num_points: int) -> None:
    points = tilted.surface_points(num_points)
    assert points.shape == (4, num_points, 3)
    distance = np.linalg.norm(points - tilted.positions[:, None], axis=2)
    assert distance.max() <= 7.0


def test_surface_points_lie_in_the_plane(tilted: Contacts) -> None:
    from_centre = tilted.surface_points(50) - tilted.positions[:, None]
    np.testing.assert_allclose(np.einsum("cpx,cx->cp", from_centre, tilted.normals), 0.0, atol=1e-9)


@pytest.mark.parametrize("num_points", [2, 8, 50])
def test_mean_of_surface_points_is_the_centre(tilted: Contacts, num_points: int) -> None:
    np.testing.assert_allclose(tilted.surface_points(num_points).mean(axis=1), tilted.positions, atol=1e-9)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_surface_points_are_spread_evenly(tilted: Contacts, share: float) -> None:
    distance = np.linalg.norm(tilted.surface_points(400) - tilted.positions[:, None], axis=2)
    # A circle about the centre holds its share of the area, and no more points.
    np.testing.assert_allclose((distance < 7.0 * np.sqrt(share)).mean(axis=1), share, atol=0.01)


def test_surface_points_favour_no_direction(tilted: Contacts) -> None:
    from_centre = tilted.surface_points(400) - tilted.positions[:, None]
    moments = np.linalg.eigvalsh(np.einsum("cpx,cpy->cxy", from_centre, from_centre) / 400)
    np.testing.assert_allclose(moments[:, 1:], 7.0**2 / 4, rtol=0.02)


def test_surface_points_are_apart(tilted: Contacts) -> None:
    points = tilted.surface_points(100)
    distance = np.linalg.norm(points[:, :, None] - points[:, None], axis=3)
    distance[:, np.arange(100), np.arange(100)] = np.inf
    # A hundred points on a disc of radius R have pi R^2 / 100 each.
    assert distance.min() > 0.5 * np.sqrt(np.pi * 49.0 / 100)


@pytest.mark.parametrize(("radius_um", "num_points"), [(0.0, 8), (7.0, 1)])
def test_one_surface_point_is_the_centre(radius_um: float, num_points: int) -> None:
    contacts = make_contacts(radius_um=radius_um)
    np.testing.assert_array_equal(contacts.surface_points(num_points), contacts.positions[:, None])


# Probes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flat_contacts_round_trip(layout: str) -> None:
    contacts = make_contacts(layout=layout, spacing_um=17.0, radius_um=4.5)
    probe = probe_of_contacts(contacts)
    back = contacts_of_probe(probe)
    assert probe.ndim == 2
    np.testing.assert_allclose(back.positions, contacts.positions, atol=1e-9)
    np.testing.assert_allclose(back.normals, contacts.normals)
    assert back.radius_um == pytest.approx(4.5)


def test_contacts_in_space_round_trip(tilted: Contacts) -> None:
    probe = probe_of_contacts(tilted)
    back = contacts_of_probe(probe)
    assert probe.ndim == 3
    np.testing.assert_allclose(back.positions, tilted.positions - tilted.positions.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(back.normals, tilted.normals, atol=1e-9)
    assert back.radius_um == pytest.approx(7.0)


def test_contacts_that_face_sideways_round_trip() -> None:
    contacts = replace(make_contacts(layout="linear"), normals=np.tile([1.0, 0.0, 0.0], (16, 1)))
    np.testing.assert_allclose(contacts_of_probe(probe_of_contacts(contacts)).normals, contacts.normals, atol=1e-9)


def test_probe_is_wired_in_order(tilted: Contacts) -> None:
    assert probe_of_contacts(tilted).device_channel_indices.tolist() == [0, 1, 2, 3]


def test_contacts_without_radius_make_a_probe() -> None:
    contacts = make_contacts(radius_um=0.0)
    np.testing.assert_array_equal(probe_of_contacts(contacts).contact_positions, contacts.positions[:, :2])


@pytest.mark.parametrize(("unit", "um"), [("um", 1.0), ("mm", 1e3), ("m", 1e6)])
def test_units_of_a_probe(unit: str, um: float) -> None:
    probe = Probe(ndim=2, si_units=unit)
    probe.set_contacts(np.array([[0.0, 0.0], [0.0, 40.0]]) / um, shapes="circle", shape_params={"radius": 8.0 / um})
    contacts = contacts_of_probe(probe)
    np.testing.assert_allclose(contacts.positions, [[0, -20, 0], [0, 20, 0]])
    assert contacts.radius_um == pytest.approx(8.0)


def row_of_four() -> Probe:
    probe = Probe(ndim=2, si_units="um")
    probe.set_contacts(np.column_stack([np.arange(4) * 10.0, np.zeros(4)]), shapes="circle")
    return probe


def test_contacts_come_in_the_order_of_channels() -> None:
    probe = row_of_four()
    probe.set_device_channel_indices([2, 0, 3, 1])
    assert contacts_of_probe(probe).positions[:, 0].tolist() == [-5.0, 15.0, -15.0, 5.0]


def test_contacts_that_are_not_wired_are_left_out() -> None:
    probe = row_of_four()
    probe.set_device_channel_indices([1, -1, 0, -1])
    assert contacts_of_probe(probe).positions[:, 0].tolist() == [10.0, -10.0]


def test_probe_wired_nowhere() -> None:
    probe = row_of_four()
    probe.set_device_channel_indices([-1, -1, -1, -1])
    with pytest.raises(ValueError, match="no contacts"):
        contacts_of_probe(probe)


@pytest.mark.parametrize(
    ("shape", "params", "area"),
    [("square", {"width": 12.0}, 144.0), ("rect", {"width": 12.0, "height": 20.0}, 240.0)],
)
def test_other_shapes_count_by_their_area(shape: str, params: dict[str, float], area: float) -> None:
    probe = Probe(ndim=2, si_units="um")
    probe.set_contacts(np.array([[0.0, 0.0], [0.0, 40.0]]), shapes=shape, shape_params=params)
    assert np.pi * contacts_of_probe(probe).radius_um ** 2 == pytest.approx(area)


def test_contacts_of_two_sizes_count_by_their_mean_area() -> None:
    probe = Probe(ndim=2, si_units="um")
    sizes = [{"radius": 3.0}, {"radius": 9.0}]
    probe.set_contacts(np.array([[0.0, 0.0], [0.0, 40.0]]), shapes=["circle", "circle"], shape_params=sizes)
    assert contacts_of_probe(probe).radius_um == pytest.approx(np.sqrt((9 + 81) / 2))


def test_empty_probe() -> None:
    with pytest.raises(ValueError, match="no contacts"):
        contacts_of_probe(Probe(ndim=2))


@pytest.mark.parametrize(
    "probe",
    [
        generate_tetrode(),
        generate_linear_probe(num_elec=16, ypitch=25),
        generate_multi_columns_probe(num_columns=3, num_contact_per_column=[4, 5, 4], xpitch=20, ypitch=30),
    ],
    ids=["tetrode", "linear", "columns"],
)
def test_generated_probes_keep_their_shape(probe: Probe) -> None:
    contacts = contacts_of_probe(probe)
    expected = probe.contact_positions - probe.contact_positions.mean(axis=0)
    np.testing.assert_allclose(contacts.positions[:, :2], expected, atol=1e-9)
    np.testing.assert_array_equal(contacts.positions[:, 2], 0.0)
    assert contacts.radius_um == pytest.approx(probe.contact_shape_params[0]["radius"])


def test_probe_turned_into_space_keeps_its_shape() -> None:
    flat = generate_tetrode()
    turned = flat.to_3d(axes="xz")
    contacts, expected = contacts_of_probe(turned), contacts_of_probe(flat).positions
    np.testing.assert_allclose(contacts.positions, expected[:, [0, 2, 1]], atol=1e-9)
    np.testing.assert_allclose(np.abs(contacts.normals), np.tile([0.0, 1.0, 0.0], (4, 1)), atol=1e-9)


# Sources


@pytest.mark.parametrize("conductivity", [0.3, 1.0])
def test_point_source_closed_form(neuron: NeuronCurrents, conductivity: float) -> None:
    soma, contacts = np.array([40.0, -25.0, 30.0]), make_contacts().positions
    field = lead_field(
        neuron, soma_position=soma, contact_positions=contacts, source="point", conductivity=conductivity
    )
    middle = soma + (neuron.seg_start + neuron.seg_end) / 2
    distance = np.linalg.norm(contacts[:, None] - middle[None], axis=2)
    # No contact lies within a segment: there the potential would be that at its surface.
    expected = point_potential(np.maximum(distance, neuron.seg_diam / 2), conductivity=conductivity)
    np.testing.assert_allclose(field, expected, rtol=1e-5)


@pytest.mark.parametrize(("along", "beside"), [(0.0, 15.0), (10.0, 30.0), (-45.0, 5.0), (60.0, 12.0)])
def test_line_source_closed_form(ball: NeuronCurrents, along: float, beside: float) -> None:
    wire = replace(
        ball, seg_start=np.array([[-20.0, 0, 0]]), seg_end=np.array([[20.0, 0, 0]]), seg_diam=np.array([1.0])
    )
    field = lead_field(wire, soma_position=np.zeros(3), contact_positions=np.array([[along, beside, 0.0]]))
    # The mean of 1 / r over the wire.
    mean = (np.arcsinh((along + 20) / beside) - np.arcsinh((along - 20) / beside)) / 40
    np.testing.assert_allclose(field, [[mean * point_potential(np.array(1.0))]], rtol=1e-4)


@pytest.mark.parametrize("distance", [10.0, 11.0, 20.0, 100.0])
@pytest.mark.parametrize("direction", [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.6, 0.0, -0.8]])
def test_soma_sphere_is_a_point_from_outside(ball: NeuronCurrents, distance: float, direction: list[float]) -> None:
    contact = distance * np.array([direction])
    field = lead_field(ball, soma_position=np.zeros(3), contact_positions=contact, source="soma_sphere")
    np.testing.assert_allclose(field, [[point_potential(np.array(distance))]], rtol=1e-5)


@pytest.mark.parametrize("distance", [0.0, 3.0, 9.9])
def test_soma_sphere_inside_is_as_at_its_surface(ball: NeuronCurrents, distance: float) -> None:
    contact = np.array([[0.0, distance, 0.0]])
    field = lead_field(ball, soma_position=np.zeros(3), contact_positions=contact, source="soma_sphere")
    np.testing.assert_allclose(field, [[point_potential(np.array(10.0))]], rtol=1e-5)


def test_soma_sphere_is_of_the_soma_alone(neuron: NeuronCurrents) -> None:
    soma, contacts = np.array([20.0, 10.0, 15.0]), make_contacts().positions
    line, sphere = (
        lead_field(neuron, soma_position=soma, contact_positions=contacts, source=source)
        for source in ("line", "soma_sphere")
    )
    others = np.arange(len(neuron.seg_diam)) != neuron.soma
    np.testing.assert_array_equal(line[:, others], sphere[:, others])
    assert (line[:, ~others] != sphere[:, ~others]).all()


def test_all_sources_agree_from_far_away(neuron: NeuronCurrents) -> None:
    contacts = np.array([[3000.0, 0.0, 0.0], [0.0, -4000.0, 1000.0]])
    fields = [
        lead_field(neuron, soma_position=np.zeros(3), contact_positions=contacts, source=source) for source in SOURCES
    ]
    np.testing.assert_allclose(fields[1], fields[0], rtol=1e-2)
    np.testing.assert_allclose(fields[2], fields[0], rtol=1e-2)


@pytest.mark.parametrize("source", SOURCES)
def test_field_inside_the_neuron_is_finite(neuron: NeuronCurrents, source: str) -> None:
    contacts = np.concatenate([np.zeros((1, 3)), neuron.seg_start[:5], neuron.seg_end[:5]])
    field = lead_field(neuron, soma_position=np.zeros(3), contact_positions=contacts, source=source)
    assert np.isfinite(field).all() and field.min() > 0


def test_unknown_source(neuron: NeuronCurrents) -> None:
    with pytest.raises(ValueError, match="not 'plane'"):
        lead_field(neuron, soma_position=np.zeros(3), contact_positions=np.ones((1, 3)), source="plane")


# The mean over a contact


@pytest.fixture(scope="module")
def disc() -> np.ndarray:
    """Points on a disc of 6 um, on rings and spokes, each standing for the same area."""
    radius, angle = 6.0 * np.sqrt((np.arange(12) + 0.5) / 12), np.arange(20) / 20 * 2 * np.pi
    return np.array([[r * np.cos(a), r * np.sin(a), 0.0] for r in radius for a in angle])


@pytest.mark.parametrize("source", SOURCES)
def test_mean_over_a_disc(neuron: NeuronCurrents, disc: np.ndarray, source: str) -> None:
    rng = np.random.default_rng(3)
    contacts, errors = make_contacts(), []
    points = (contacts.positions[:, None] + disc[None]).reshape(-1, 3)
    for distance in rng.uniform(25.0, 60.0, size=20):
        direction = rng.normal(size=3)
        place = {
            "soma_position": distance * direction / np.linalg.norm(direction),
            "rotation": random_rotation(rng),
            "source": source,
        }
        seen = contact_field(neuron, contacts=contacts, **place) @ neuron.mean_currents
        dense = lead_field(neuron, contact_positions=points, **place).reshape(4, len(disc), -1).mean(axis=1)
        expected = dense @ neuron.mean_currents
        errors.append(np.abs(seen - expected).max() / np.abs(expected).max())
    # A dendrite may pass by a contact.
    assert np.quantile(errors, 0.8) < 0.01
    assert max(errors) < 0.05


def test_mean_over_a_disc_is_not_its_centre(ball: NeuronCurrents) -> None:
    contacts = make_contacts(layout="single", radius_um=20.0)
    seen = contact_field(
        ball, soma_position=np.array([0.0, 0.0, 15.0]), contacts=contacts, source="point", num_surface_points=200
    )
    # Of a point 15 um above a disc of 20 um: 2 (sqrt(d^2 + R^2) - d) / R^2.
    expected = point_potential(np.array(1.0)) * 2 * (np.hypot(15.0, 20.0) - 15.0) / 20.0**2
    np.testing.assert_allclose(seen, [[expected]], rtol=5e-3)


def test_disc_turned_away(ball: NeuronCurrents) -> None:
    upright, turned = (
        Contacts(np.zeros((1, 3)), 15.0, np.array([normal])) for normal in ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0])
    )
    soma = np.array([20.0, 0.0, 0.0])
    seen = [contact_field(ball, soma_position=soma, contacts=c, source="point")[0, 0] for c in (upright, turned)]
    # A disc that lies along the way to the soma has points that are near it.
    assert seen[0] > 1.1 * seen[1]


@pytest.mark.parametrize("source", SOURCES)
def test_displacement_is_a_moved_soma(neuron: NeuronCurrents, source: str, tilted: Contacts) -> None:
    rotation = random_rotation(np.random.default_rng(4))
    soma = np.array([60.0, 50.0, 40.0])
    displacements = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, -5.0], [-3.0, 8.0, 2.0]])
    fields = contact_field(
        neuron, soma_position=soma, contacts=tilted, rotation=rotation, displacements=displacements, source=source
    )
    assert fields.shape == (3, 4, len(neuron.seg_diam))
    for field, displacement in zip(fields, displacements, strict=True):
        moved = contact_field(
            neuron, soma_position=soma + displacement, contacts=tilted, rotation=rotation, source=source
        )
        np.testing.assert_allclose(field, moved, rtol=1e-3)


def test_contacts_without_radius_see_the_lead_field(neuron: NeuronCurrents) -> None:
    contacts, soma = make_contacts(radius_um=0.0), np.array([40.0, 10.0, 20.0])
    np.testing.assert_array_equal(
        contact_field(neuron, soma_position=soma, contacts=contacts),
        lead_field(neuron, soma_position=soma, contact_positions=contacts.positions),
    )


# Against LFPy


@pytest.mark.parametrize(("source", "method"), [("line", "linesource"), ("point", "pointsource")])
@pytest.mark.parametrize("soma", [[35.0, 5.0, 20.0], [-20.0, 40.0, -30.0]])
def test_lfpy_sees_the_same(neuron: NeuronCurrents, source: str, method: str, soma: list[float]) -> None:
    lfpy = pytest.importorskip("LFPy")
    contacts = make_contacts()
    place = {"soma_position": np.array(soma), "rotation": random_rotation(np.random.default_rng(5)), "source": source}
    start, end = (ends @ place["rotation"].T + soma for ends in (neuron.seg_start, neuron.seg_end))
    cell = CellGeometry(
        *(np.column_stack([start[:, axis], end[:, axis]]) for axis in range(3)), d=neuron.seg_diam.astype(float)
    )
    x, y, z = contacts.positions.T
    electrode = lfpy.RecExtElectrode(
        cell,
        sigma=CONDUCTIVITY,
        x=x,
        y=y,
        z=z,
        N=contacts.normals,
        r=contacts.radius_um,
        n=300,
        method=method,
        seedvalue=7,
    )
    # LFPy gives mV for nA.
    expected = 1000.0 * electrode.get_transformation_matrix()
    # It draws the points on its contacts at random.
    points = np.asarray(electrode.recorded_points)
    at_points = lead_field(neuron, contact_positions=points.reshape(-1, 3), **place).reshape(4, 300, -1)
    np.testing.assert_allclose(at_points.mean(axis=1), expected, rtol=1e-4)
    assert np.linalg.norm(points - contacts.positions[:, None], axis=2).max() <= contacts.radius_um

    waveforms = expected @ neuron.mean_currents
    off = np.abs(contact_field(neuron, contacts=contacts, **place) @ neuron.mean_currents - waveforms)
    chance = (at_points @ neuron.mean_currents).std(axis=1) / np.sqrt(300)
    assert (off <= 0.01 * np.abs(waveforms).max(axis=1, keepdims=True) + 4 * chance).all()
