"""The truth against the pixels: boxes, poses, visibility and events are what was drawn."""

import copy
import dataclasses

import numpy as np
import pytest
from crafter.engine import LocalView
from panda3d.core import NodePath, PerspectiveLens, Point2, Point3

from data.worlds.craft.film import Painter
from data.worlds.craft.play import Game
from data.worlds.doom.film import film as film_doom
from data.worlds.framing import design_framing, film_framing
from data.worlds.physics import film as physics
from data.worlds.physics.plan import design_scene
from data.worlds.render.shots import plan_shots
from data.worlds.render.stage import FAR, FOV_DEGREES, id_colour, id_numbers, stage
from data.worlds.render.view import (
    NEAR,
    Pose,
    cover,
    fov_of,
    look_at,
    outline,
    project,
    share_inside,
    view_axes,
)
from data.worlds.rooms import film as rooms
from data.worlds.rooms.room import design_path, design_room
from data.worlds.sources import FRAMING_SIZES
from data.worlds.truth import Track, check_truth, hiding_events

# A drawn edge may lie a pixel off the geometry's: the renderer rounds vertices to pixels.
EDGE_PIXELS = 1.5
SKY = (1.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def truth():
    return rooms.film(0, 0, 2, 48, 64).truth


def world_pose(truth, index):
    """Return what is needed to project a world point into a frame of a truth."""
    return Pose(*truth["camera"]["poses"][index]), tuple(truth["camera"]["fov_degrees"])


def test_projection_equals_the_renderers_lens():
    lens = PerspectiveLens()
    fov = fov_of(FOV_DEGREES, 72, 128)
    lens.set_fov(*fov)
    lens.set_near_far(NEAR, FAR)
    camera, pose = NodePath("camera"), Pose(1.0, -2.0, 0.5, 130.0, -20.0, 7.0)
    camera.set_pos_hpr(*pose)
    near = np.random.default_rng(0).uniform((-3, 1, -2), (3, 6, 2), (40, 3))
    points = near @ view_axes(pose) + np.array(pose[:3])
    pixels, depth = project(points, pose, fov, 72, 128)
    seen = 0
    for point, pixel, away in zip(points, pixels, depth, strict=True):
        flat = Point2()
        if lens.project(camera.get_relative_point(NodePath("world"), Point3(*point)), flat):
            wanted = [(1 + flat[0]) * 64, (1 - flat[1]) * 36]
            np.testing.assert_allclose(pixel, wanted, atol=1e-2)
            assert away > 0
            seen += 1
    assert seen > 5


def test_the_camera_looks_at_its_target():
    pose = look_at((3.0, -4.0, 2.0), (0.5, 1.0, 0.25))
    pixels, depth = project(np.array([[0.5, 1.0, 0.25]]), pose, (60.0, 40.0), 100, 200)
    np.testing.assert_allclose(pixels[0], [100, 50], atol=0.01)
    assert depth[0] == pytest.approx(np.linalg.norm([2.5, 5, 1.75]), abs=1e-3)


def test_outlines_cover_the_pixels_whose_centres_they_hold():
    square = outline(np.array([[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0], [2.0, 2.0]]))
    rows, columns, inside = cover(square, 10, 10)
    assert (rows, columns) == (slice(1, 3), slice(1, 4))
    assert inside.all()
    assert cover(square - [2.6, 2.4], 10, 10)[2].sum() == 1
    assert share_inside([-1.0, 0.0, 1.0, 2.0], 4, 4) == 0.5


def test_ids_survive_the_way_through_colours():
    numbers = np.arange(216)
    image = np.array([id_colour(number) for number in numbers], np.uint8)
    np.testing.assert_array_equal(id_numbers(image[None])[0], numbers)


def draw_without(seed, hidden, height, width):
    """Draw the first frame of a room, with one object taken away."""
    scene = rooms.Scene(design_room(seed), seed)
    if hidden is not None:
        for _, node in scene.actors[hidden].parts:
            node.hide()
    shots = plan_shots([design_path(seed, 0)], [], 1)
    frames = stage().film(
        scene.root, SKY, scene.actors, shots, lambda index: scene.move_things(0.0), height, width
    )
    tracks = [actor.track for actor in scene.actors]
    scene.close()
    return frames[0], tracks


def test_boxes_and_visible_shares_are_those_of_the_pixels_that_an_object_changes():
    height, width, whole, partial = 96, 144, 0, 0
    for seed in range(5):
        full, tracks = draw_without(seed, None, height, width)
        for number, track in enumerate(tracks):
            changed = (draw_without(seed, number, height, width)[0] != full).any(-1)
            visible, inside, box = track.visible[0], track.in_frame[0], track.boxes[0]
            if box is None or not changed.any():
                assert visible < 0.05
                continue
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            clipped = np.clip(box, 0, [width, height, width, height])
            slack = np.array(drawn) - clipped
            assert (slack[:2] > -EDGE_PIXELS).all()
            assert (slack[2:] < EDGE_PIXELS).all()
            if visible > 0.98:
                np.testing.assert_allclose(drawn, clipped, atol=EDGE_PIXELS)
                whole += 1
            elif visible < 0.9:
                assert changed.sum() < 0.97 * (clipped[2] - clipped[0]) * (clipped[3] - clipped[1])
                partial += 1
            if visible > 0.98 and inside == 1 and track.kind == "ball":
                pose = plan_shots([design_path(seed, 0)], [], 1)[0].poses[0]
                fov = fov_of(FOV_DEGREES, height, width)
                pixel = project(np.array([track.positions[0]]), pose, fov, height, width)[0][0]
                assert changed[int(pixel[1]), int(pixel[0])]
    assert whole > 5
    assert partial > 1


def test_what_is_hidden_has_no_pixels_and_a_projected_position_lands_on_the_ball(monkeypatch):
    """Film twice with the ball in two colours: what differs is what shows of the ball."""
    seed = next(n for n in range(3, 60) if design_scene(n, 0, 1.6).scene == "pass")
    clip = physics.film(seed, 0, 17, 96, 128)

    def repaint(*arguments):
        plan = design_scene(*arguments)
        ball = dataclasses.replace(plan.bodies[0], colour="pink")
        return dataclasses.replace(plan, bodies=(ball, *plan.bodies[1:]))

    monkeypatch.setattr(physics, "design_scene", repaint)
    other = physics.film(seed, 0, 17, 96, 128)
    shown = (clip.frames != other.frames).any(-1)
    ball = clip.truth["objects"][0]
    events = {e["kind"]: e["frame"] for e in clip.truth["events"] if ball["id"] in e["objects"]}
    assert 0 < events["occluded"] < events["reappears"] < 17
    assert "goes behind the" in clip.caption
    assert ball["visible"].count(0.0) >= 1
    assert ball["visible"].count(1.0) >= 4
    for index, visible in enumerate(ball["visible"]):
        pose, fov = world_pose(clip.truth, index)
        x, y = project(np.array([ball["positions"][index]]), pose, fov, 96, 128)[0][0]
        assert shown[index].any() == (visible > 0)
        if visible == 1:
            assert shown[index, int(y), int(x)]


def test_hiding_is_neither_leaving_the_frame_nor_a_cut():
    def track_of(visible, in_frame):
        count = len(visible)
        return Track("a", "ball", "red", "", False, [[0.0] * 4] * count, in_frame, visible, [])

    behind = track_of([1.0, 0.5, 0.0, 0.0, 0.2, 0.9], [1.0] * 6)
    found = [(e.frame, e.kind) for e in hiding_events(behind, [])]
    assert found == [(2, "occluded"), (5, "reappears")]
    assert hiding_events(behind, [2, 5]) == []
    leaving = track_of([1.0, 1.0, 0.0, 1.0], [1.0, 0.4, 0.0, 1.0])
    assert hiding_events(leaving, []) == []


def test_a_break_replaces_the_body_by_pieces_in_the_very_frame():
    found = 0
    for seed in range(12):
        clip = physics.film(seed, 0, 17, 64, 96)
        broken = [event for event in clip.truth["events"] if event["kind"] == "break"]
        pieces = [track for track in clip.truth["objects"] if track["kind"] == "piece"]
        assert bool(broken) == bool(pieces)
        for event in broken:
            whole = next(t for t in clip.truth["objects"] if t["id"] == event["objects"][0])
            frame = event["frame"]
            assert all(box is not None for box in whole["boxes"][:frame])
            assert all(box is None for box in whole["boxes"][frame:])
            assert all(p["positions"][frame - 1] is None for p in pieces)
            assert all(p["positions"][frame] is not None for p in pieces)
            assert {p["colour"] for p in pieces} == {whole["colour"]}
            spread = [
                np.ptp([p["positions"][f] for p in pieces], axis=0).max() for f in (frame, -1)
            ]
            assert spread[1] >= spread[0]
            assert "breaks into pieces" in clip.caption
            found += 1
    assert found >= 1


def test_a_collision_sets_what_was_hit_in_motion():
    found = 0
    for seed in range(12):
        clip = physics.film(seed, 0, 17, 48, 64)
        tracks = {track["id"]: track for track in clip.truth["objects"]}
        for event in clip.truth["events"]:
            hit = [n for n in event["objects"] if n.startswith(("ball-1", "box-1"))]
            if event["kind"] != "collision" or not hit or not 0 < event["frame"] < 15:
                continue
            places = np.array(tracks[hit[0]]["positions"])
            speed = np.linalg.norm(np.diff(places, axis=0), axis=1)
            if speed[: event["frame"] - 1].max(initial=0) < 0.01:
                assert speed[event["frame"] :].max() > 0.02
                found += 1
    assert found >= 2


@pytest.mark.parametrize("film", [rooms.film, physics.film])
def test_shots_cut_on_the_latent_grid_and_show_one_subject(film):
    clip = film(5, 0, 17, 64, 112, num_shots=3)
    assert len(clip.shots) == 2
    assert all(frame % 4 == 1 and frame >= 5 for frame in clip.shots)
    assert clip.caption.count("cut to") == 2
    change = np.abs(np.diff(clip.frames.astype(int), axis=0)).mean((1, 2, 3))
    inside = np.delete(change, [frame - 1 for frame in clip.shots])
    assert min(change[frame - 1] for frame in clip.shots) > 1.5 * np.median(inside)
    subjects = [track for track in clip.truth["objects"] if track["subject"]]
    assert len(subjects) == 1
    assert len(clip.truth["shots"]) == 3


def test_the_framing_subject_is_whole_in_every_frame_and_its_box_is_that_of_its_pixels():
    for seed, (height, width) in enumerate(FRAMING_SIZES):
        clip = film_framing(seed, 9, height, width)
        subject = clip.truth["objects"][0]
        assert subject["subject"]
        assert len(clip.truth["objects"]) == 1
        assert subject["in_frame"] == [1.0] * 9
        assert min(subject["visible"]) > 0.85
        for frame, box in zip(clip.frames.astype(int), subject["boxes"], strict=True):
            # Grounds are grey, white or black: below the horizon only the subject has a colour.
            saturation = frame.max(-1) - frame.min(-1)
            x0, y0, x1, y1 = box
            found = saturation[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] > 40
            assert found.mean() > 0.5
            beside = saturation[int(y1) + 3 :, :]
            assert not (beside > 60).any()


def test_most_framing_subjects_would_be_cut_or_lost_by_a_square_crop():
    lost = 0
    for seed in range(200):
        height, width = FRAMING_SIZES[seed % len(FRAMING_SIZES)]
        plan = design_framing(seed, 17, height, width, 12.0)
        fov = fov_of(FOV_DEGREES, height, width)
        point = plan.path[:1] + np.array([0.0, 0.0, 0.5])
        middle = project(point, plan.pose, fov, height, width)[0][0]
        along, side = (middle[0], width) if width > height else (middle[1], height)
        lost += abs(along - side / 2) > min(height, width) / 2 - 6
    assert 0.25 < lost / 200 < 0.75


@pytest.fixture(scope="module")
def game():
    return Game(2)


@pytest.mark.heavy
def test_the_craft_picture_is_the_games_own_where_that_can_be_compared(game):
    game.env._step = 60  # noon: the game's light is exactly one
    game.env._update_time()
    moment = game.moment()
    painter = Painter(game, 144, 144, 16)
    mine = painter.paint(moment, moment, 0.0)
    view = LocalView(game.world, game.env._textures, [9, 9])
    theirs = view(game.player, np.array([16, 16])).transpose(1, 0, 2)
    solid = np.abs(mine.astype(int) - theirs.astype(int)).max(-1)
    assert (solid > 2).mean() < 0.002  # half-transparent rims of figures are solid here
    odd = Painter(game, 90, 122, 16).paint(moment, moment, 0.0)
    np.testing.assert_array_equal(odd, mine[27:117, 11:133])


@pytest.mark.heavy
def test_craft_boxes_and_positions_agree_with_the_camera(game):
    moment = game.moment()
    painter = Painter(game, 90, 122, 12)
    painter.paint(moment, moment, 0.0)
    assert sum(track.subject for track in painter.tracks.values()) == 1
    for track in painter.tracks.values():
        x, y, _ = track.positions[0]
        left, top = painter.poses[0][:2]
        pixel = (x - left) * 12 + 122 / 2, (y - top) * 12 + 90 / 2
        box = track.boxes[0]
        assert box[0] - 6 <= pixel[0] <= box[2] + 6
        assert box[1] - 6 <= pixel[1] <= box[3] + 6
        assert 0 <= track.visible[0] <= 1


@pytest.mark.heavy
def test_walk_poses_put_creatures_where_their_labels_are():
    checked = 0
    for height, width in ((120, 160), (144, 256)):
        for clip in film_doom("freedoom2", "MAP11", 3, [(5, 2)] * 4, height, width):
            for track in clip.truth["objects"]:
                for index, box in enumerate(track["boxes"]):
                    if box is None or box[0] < 2 or box[2] > width - 2 or box[3] > height - 2:
                        continue
                    pose, fov = world_pose(clip.truth, index)
                    foot = np.array([track["positions"][index]])
                    (pixel,), (depth,) = project(foot, pose, fov, height, width)
                    assert depth > 0
                    reach = 2 + (box[2] - box[0]) / 2
                    assert abs(pixel[0] - (box[0] + box[2]) / 2) < reach
                    assert box[1] - 4 < pixel[1] < box[3] + 40 * height / depth
                    checked += 1
    assert checked > 5


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        (("world",), "moon", "must be one of"),
        (("camera", "poses"), [[0.0]], "6 numbers"),
        (("camera", "fov_degrees"), None, "fov_degrees or pixels_per_unit"),
        (("attributes",), {"a": {"b": 1}}, "must map text"),
        (("shots",), [{"start": 0, "stop": 1, "words": ""}], "cover the clip"),
        (("objects", 0, "visible"), [2.0, 0.0], "breaks the schema"),
        (("objects", 0, "boxes"), [None], "breaks the schema"),
        (("events",), [{"frame": 9, "kind": "break", "objects": []}], "must be known"),
        (("events",), [{"frame": 0, "kind": "break", "objects": ["x"]}], "must be known"),
    ],
)
def test_truths_that_break_the_schema_are_refused(truth, path, value, rule):
    broken = copy.deepcopy(truth)
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=rule):
        check_truth(broken)
    del broken["camera"]
    with pytest.raises(ValueError, match="truth=camera: is missing"):
        check_truth(broken)
