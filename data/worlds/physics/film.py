"""Rigid bodies that fall, roll, hit, hide behind walls and break: simulated by bullet, on CPU.

A fixed step and one thread make a clip a function of ``(seed, take, length, frame rate, size)``.
Events come from the simulation's contacts: a frame ``n`` shows the state at time n / fps, and an
event belongs to the first frame that is not before it.
"""

import math
from itertools import product

import numpy as np
from panda3d.bullet import (
    BulletBoxShape,
    BulletPlaneShape,
    BulletRigidBodyNode,
    BulletSphereShape,
    BulletWorld,
)
from panda3d.core import LVector3, NodePath, TransformState

from data.worlds.clip import Clip, check_size
from data.worlds.physics.plan import GRAVITY, Body, Plan, design_scene
from data.worlds.physics.words import describe
from data.worlds.render import shapes
from data.worlds.render.scene import close, fix_order, light, shade
from data.worlds.render.setting import SKIES
from data.worlds.render.shots import choose_cuts, plan_shots
from data.worlds.render.stage import FOV_DEGREES, IDS, Actor, stage, vertices
from data.worlds.render.view import fov_of
from data.worlds.truth import EVENTS, CameraTruth, Event, ShotTruth, Track, Truth, hiding_events
from data.worlds.words import STYLE

STEP_SECONDS = 1 / 240
# Impulses in newton seconds: a small ball at walking speed gives about 1.
COLLISION_IMPULSE, BREAK_IMPULSE = 0.15, 1.2
BOUNCE_SPEED = 0.8  # metres per second downwards before, and half of it upwards after
APART_SECONDS = 0.25  # two bodies that touch again sooner have not met anew
PIECES_PER_SIDE = 2
STRIPES = 0.72  # brightness of a body's stripes against its colour
GROUND = "ground"
PIECE = "piece"  # kind of what a broken body leaves


class Thing:
    """A body in the simulation and on the stage."""

    def __init__(self, body: Body, name: str, root: NodePath, rng: np.random.Generator) -> None:
        self.body, self.name = body, name
        half = body.half or (body.radius,) * 3
        ball = body.kind == "ball"
        self.rigid = BulletRigidBodyNode(name)
        self.rigid.add_shape(
            BulletSphereShape(body.radius) if ball else BulletBoxShape(LVector3(*half))
        )
        self.rigid.set_mass(body.mass)
        self.rigid.set_friction(0.7)
        self.rigid.set_linear_damping(0.02)
        self.rigid.set_deactivation_enabled(False)
        # Thrown bodies cross a wall's thickness in a few steps: check the way between steps too.
        self.rigid.set_ccd_motion_threshold(0.1)
        self.rigid.set_ccd_swept_sphere_radius(body.radius * 0.5)
        self.node = root.attach_new_node(self.rigid)
        self.node.set_pos(*body.position)
        self.node.set_h(body.heading)
        self.rigid.set_linear_velocity(LVector3(*body.velocity))
        if ball:  # it rolls from the start: the spin that goes with its speed
            x, y, _ = body.velocity
            self.rigid.set_angular_velocity(LVector3(-y, x, 0) / body.radius)
        mesh = shapes.sphere() if ball else shapes.box()
        skin = self.node.attach_new_node(shapes.node(mesh))
        if ball:
            skin.set_scale(body.radius)
            skin.set_z(-body.radius)
        else:  # the mesh is a cube of side 1.7 that stands on z = 0
            skin.set_scale(*(side / 0.85 for side in half))
            skin.set_z(-half[2])
        # A darker shade in stripes shows that it turns, and its colour keeps its name.
        pattern = "tiled" if body.kind == "crate" else "striped" if ball else "plain"
        shade_of = STRIPES if pattern != "plain" else 1.0
        colour = body.colour
        skin.set_texture(shapes.pattern_texture(pattern, colour, colour, rng, shade_of))
        track = Track(name, body.kind, body.colour, body.size, body.subject)
        self.actor = Actor(track, [(vertices(mesh), skin)])
        self.shadow = root.attach_new_node(shapes.node(shapes.cylinder()))
        self.shadow.set_scale(1.2 * half[0], 1.2 * half[1], 0.006)
        shade(self.shadow)

    def hide(self) -> None:
        """Take it off the stage."""
        self.actor.parts[0][1].hide()
        self.shadow.hide()

    def show(self) -> None:
        """Put it on the stage."""
        self.actor.parts[0][1].show()
        self.shadow.show()
        self.shadow.hide(IDS)

    def settle(self, root: NodePath) -> None:
        """Put the shadow on the ground below it."""
        x, y, _ = self.node.get_pos(root)
        self.shadow.set_pos(x, y, 0.01)
        if self.body.mass and self.body.kind != "ball":
            self.shadow.set_h(self.node.get_h(root))


class Simulation:
    """A scene that runs: step it, and it notes what meets, bounces and breaks."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        rng = np.random.default_rng([0x7E88, seed])
        self.root = NodePath("scene")
        floor = self.root.attach_new_node(shapes.node(shapes.grid(40, 40, 0.4, 12)))
        floor.set_texture(shapes.pattern_texture(plan.floor_pattern, *plan.floor_colours, rng))
        self.world = BulletWorld()
        self.world.set_gravity(LVector3(0, 0, -GRAVITY))
        ground = BulletRigidBodyNode(GROUND)
        ground.add_shape(BulletPlaneShape(LVector3(0, 0, 1), 0))
        ground.set_restitution(1.0)
        ground.set_friction(0.7)
        self.root.attach_new_node(ground)
        self.world.attach(ground)
        self.things: dict[str, Thing] = {}
        for number, body in enumerate(plan.bodies):
            self._add(Thing(body, f"{body.kind}-{number}", self.root, rng))
        # Pieces wait unseen, so that the stage knows all its actors from the start.
        self.pieces: dict[str, list[Thing]] = {}
        for name, thing in list(self.things.items()):
            if thing.body.brittle:
                self.pieces[name] = self._make_pieces(name, thing.body, rng)
        light(self.root, plan.light, plan.light_hpr, plan.brightness)
        fix_order(self.root)
        self.seconds = 0.0
        self.events: list[tuple[float, str, list[str]]] = []
        self._touched: dict[tuple[str, str], float] = {}
        self._falling: dict[str, float] = {}
        self._doomed: list[str] = []

    def _add(self, thing: Thing) -> None:
        thing.rigid.set_restitution(self.plan.bounciness if thing.body.kind == "ball" else 0.25)
        self.world.attach(thing.rigid)
        self.things[thing.name] = thing

    def _make_pieces(self, name: str, body: Body, rng: np.random.Generator) -> list[Thing]:
        pieces = []
        side = body.radius / PIECES_PER_SIDE
        # A ball's pieces stay inside it: the cube in a sphere has half the side.
        spread = body.radius * (0.5 if body.kind != "ball" else 0.32)
        for number, corner in enumerate(product((-1, 1), repeat=3)):
            place = tuple(spread * c for c in corner)
            part = Body(
                PIECE,
                body.colour,
                "tiny",
                place,  # type: ignore[arg-type]
                radius=side * (0.95 if body.kind != "ball" else 0.62),
                mass=body.mass / 8,
            )
            thing = Thing(part, f"{name}-piece-{number}", self.root, rng)
            thing.hide()
            pieces.append(thing)
        return pieces

    @property
    def actors(self) -> list[Actor]:
        """Everything that a camera may see, with the pieces of what has not broken yet."""
        whole = [thing.actor for thing in self.things.values() if thing.body.kind != PIECE]
        return whole + [piece.actor for group in self.pieces.values() for piece in group]

    def advance(self, seconds: float) -> None:
        """Run until a time."""
        while self.seconds < seconds - STEP_SECONDS / 2:
            speeds = {n: t.rigid.get_linear_velocity() for n, t in self.things.items()}
            self.world.do_physics(STEP_SECONDS, 1, STEP_SECONDS)
            self.seconds += STEP_SECONDS
            self._note_contacts(speeds)
            for name in self._doomed:
                self._break(name, speeds[name])
            self._doomed.clear()
        for thing in self.things.values():
            thing.settle(self.root)

    def _note_contacts(self, speeds: dict[str, LVector3]) -> None:
        met: dict[tuple[str, str], float] = {}
        for manifold in self.world.get_manifolds():
            points = manifold.get_manifold_points()
            impulse = sum(point.get_applied_impulse() for point in points)
            names = sorted((manifold.get_node0().get_name(), manifold.get_node1().get_name()))
            pair = names[0], names[1]
            if impulse > 0:
                met[pair] = met.get(pair, 0.0) + impulse
        for pair, impulse in sorted(met.items()):
            anew = self.seconds - self._touched.get(pair, -1.0) > APART_SECONDS
            self._touched[pair] = self.seconds
            self._note(pair, impulse, anew, speeds)

    def _note(
        self, pair: tuple[str, str], impulse: float, anew: bool, speeds: dict[str, LVector3]
    ) -> None:
        names = [name for name in pair if name != GROUND]
        things = {name: self.things[name] for name in names if name in self.things}
        if any(thing.body.kind == PIECE for thing in things.values()):
            return
        for name in names:
            thing = things.get(name)
            if thing is None or name in self._doomed:
                continue
            if thing.body.brittle and impulse > BREAK_IMPULSE * thing.body.mass:
                self._doomed.append(name)
                self.events.append((self.seconds, "break", [name]))
            elif GROUND in pair:
                before, after = speeds[name][2], thing.rigid.get_linear_velocity()[2]
                if before < -BOUNCE_SPEED and after > BOUNCE_SPEED / 2:
                    self.events.append((self.seconds, "bounce", [name]))
        moving = any(speeds[name].length() > 0.3 for name in names if name in speeds)
        if len(names) == 2 and anew and moving and impulse > COLLISION_IMPULSE:
            self.events.append((self.seconds, "collision", names))

    def _break(self, name: str, velocity: LVector3) -> None:
        """Replace a body by its pieces, which fly on and apart."""
        thing = self.things.pop(name)
        self.world.remove(thing.rigid)
        thing.hide()
        middle = thing.node.get_transform(self.root)
        for piece in self.pieces[name]:
            corner = LVector3(*piece.body.position)
            local = TransformState.make_pos(corner)
            piece.node.set_transform(middle.compose(local))
            outward = middle.get_mat().xform_vec(corner)
            outward.normalize()
            kept = LVector3(velocity[0] * 0.3, velocity[1] * 0.3, abs(velocity[2]) * 0.2)
            piece.rigid.set_linear_velocity(kept + outward * 1.8)
            piece.rigid.set_angular_velocity(LVector3(outward[1], -outward[0], outward[2]) * 6)
            piece.show()
            self._add(piece)


def film(
    seed: int,
    take: int,
    num_frames: int,
    height: int,
    width: int,
    fps: float = 10.0,
    num_shots: int = 1,
    staged: Plan | None = None,
) -> Clip:
    """Simulate and render one take of a scene.

    Frames are uint8 (num_frames, height, width, 3); any size of at least 16 pixels a side. The same
    arguments give the same pixels on one machine and panda3d version. Takes differ by the camera.
    ``staged`` is filmed in the place of the scene that the seed designs.
    """
    check_size(num_frames, height, width)
    rng = np.random.default_rng([0x9B76, seed, take])
    cuts = choose_cuts(rng, num_frames, num_shots)
    plan = staged or design_scene(seed, take, (num_frames - 1) / fps, num_shots)
    simulation = Simulation(plan, seed)
    shots = plan_shots([*plan.paths], cuts, num_frames)
    actors = simulation.actors
    frames = stage().film(
        simulation.root,
        SKIES[plan.sky],
        actors,
        shots,
        lambda index: simulation.advance(index / fps),
        height,
        width,
    )
    close(simulation.root)
    tracks = [actor.track for actor in actors if any(actor.track.positions)]
    events = [
        Event(math.ceil(round(seconds * fps, 6)), kind, names)
        for seconds, kind, names in simulation.events
    ]
    events += [e for t in tracks if t.kind != "piece" for e in hiding_events(t, cuts)]
    events = [event for event in events if event.frame < num_frames]
    events.sort(key=lambda event: (event.frame, EVENTS.index(event.kind), event.objects))
    attributes, dense, short = describe(plan, tracks, shots, events, frames, rng)
    truth = Truth(
        world="physics",
        style=STYLE,
        camera=CameraTruth(
            kind=plan.paths[0].kind if num_shots == 1 else "cuts",
            words="; ".join(shot.words for shot in shots),
            fov_degrees=list(fov_of(FOV_DEGREES, height, width)),
            poses=[list(pose) for shot in shots for pose in shot.poses],
        ),
        objects=tracks,
        events=events,
        attributes=attributes,
        shots=[ShotTruth(shot.start, shot.stop, shot.words) for shot in shots],
    )
    variant = f"s{num_shots}" if num_shots > 1 else ""
    return Clip(
        frames=frames,
        fps=fps,
        caption=dense,
        short_caption=short,
        source=f"physics/seed-{seed:06d}",
        key=f"physics-{seed:06d}{variant}-{take:02d}",
        shots=cuts,
        truth=truth.to_json(),
    )
