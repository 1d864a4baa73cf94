#!/usr/bin/env python3
"""Replicas with placement groups of their own: gangs, and replicas with bundles."""

import os
import signal

from harness import Server, ServeTest, free_port, main, wait_until

GANG = '''
import os
from ray import serve
from ray.util.placement_group import get_current_placement_group, get_placement_group

@serve.deployment(num_replicas=4, health_check_period_s=1,
                  ray_actor_options={"num_cpus": 1},
                  gang_scheduling_config={"gang_size": 2})
class Member:
    def __call__(self, request):
        c = serve.get_replica_context()
        g = c.gang_context
        group = get_current_placement_group()
        return {"pid": os.getpid(), "id": c.replica_id.unique_id, "gang": g.gang_id,
                "rank": g.rank, "of": g.world_size, "members": g.member_replica_ids,
                "all": c.world_size,
                "same_group": get_placement_group(g.pg_name) == group,
                "bundles": group.bundle_specs}

app = Member.bind()
'''

BUNDLES = '''
import os, ray
from ray import serve
from ray.util.placement_group import get_current_placement_group

@ray.remote(num_cpus=2)
class Helper:
    def where(self):
        g = get_current_placement_group()
        return g and g.id.hex()

@serve.deployment(ray_actor_options={"num_cpus": 1},
                  placement_group_bundles=[{"CPU": 1}, {"CPU": 2}],
                  placement_group_strategy="STRICT_PACK")
class Holder:
    def __init__(self):
        self.helper = Helper.remote()
    def __call__(self, request):
        group = get_current_placement_group()
        return {"pid": os.getpid(), "group": group.id.hex(), "bundles": group.bundle_specs,
                "helper": ray.get(self.helper.where.remote()),
                "free": ray.available_resources().get("CPU", 0)}

app = Holder.bind()
'''

SHARED = '''
import ray
from ray import serve
from ray.serve.config import DeploymentActorConfig
from ray.util.placement_group import get_current_placement_group

@ray.remote(num_cpus=1)
class Common:
    def where(self):
        return get_current_placement_group() is None

@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 1},
                  placement_group_bundles=[{"CPU": 1}],
                  deployment_actors=[DeploymentActorConfig(name="common", actor_class=Common)])
class User:
    async def __call__(self, request):
        return await serve.get_deployment_actor("common").where.remote()

app = User.bind()
'''


class Gangs(ServeTest):
    def members(self, s: Server, n: int) -> dict:
        """What each of the n replicas says of itself, by its pid."""
        seen = {}

        def all_answered() -> bool:
            a = s.call("/", timeout=20)
            if a.status == 200:
                seen[a.json()["pid"]] = a.json()
            return len(seen) >= n

        wait_until(f"{n} replicas answer", all_answered, 30)
        return seen

    def gangs_of(self, members: dict) -> dict:
        gangs: dict = {}
        for m in members.values():
            gangs.setdefault(m["gang"], []).append(m)
        return gangs

    def test_each_member_knows_its_gang(self) -> None:
        s = self.serve_code(GANG, "--num-cpus", "4")
        s.wait_apps()
        gangs = self.gangs_of(self.members(s, 4))
        self.assertEqual(len(gangs), 2)
        for gang in gangs.values():
            gang.sort(key=lambda m: m["rank"])
            self.assertEqual([m["rank"] for m in gang], [0, 1])
            self.assertEqual([m["id"] for m in gang], gang[0]["members"])
            self.assertEqual(gang[0]["members"], gang[1]["members"])
            for m in gang:
                self.assertEqual((m["of"], m["all"], m["same_group"]), (2, 4, True))
                self.assertEqual(m["bundles"], [{"CPU": 1.0}, {"CPU": 1.0}])

    def test_killed_member_takes_its_gang_along(self) -> None:
        s = self.serve_code(GANG, "--num-cpus", "4")
        s.wait_apps()
        before = self.members(s, 4)
        gangs = self.gangs_of(before)
        hit, spared = list(gangs)
        os.kill(gangs[hit][0]["pid"], signal.SIGKILL)
        lost = {m["pid"] for m in gangs[hit]}
        stay = {m["pid"] for m in gangs[spared]}

        def replaced() -> bool:
            now = s.pids("app", "Member")
            return len(now) == 4 and not now & lost and stay < now

        wait_until("another gang in its place", replaced, 30)
        s.wait_apps()
        after = self.gangs_of(self.members(s, 4))
        self.assertEqual(len(after), 2)
        self.assertIn(spared, after)
        self.assertNotIn(hit, after)
        wait_until("it is healthy again", lambda: s.app("app")["deployments"]["Member"][
            "status"] == "HEALTHY", 20)

    def test_gang_without_room_is_not_started_in_part(self) -> None:
        s = self.start(self.write_app(GANG), "--num-cpus", "3")
        s.wait_rest()

        def waits() -> bool:
            return "PACK of 1 CPU; 1 CPU" in str(s.details())

        wait_until("the second gang waits", waits, 20)
        wait_until("the first gang runs", lambda: len(s.pids("app", "Member")) == 2, 20)
        self.assertEqual(len(self.gangs_of(self.members(s, 2))), 1)
        self.assertEqual(len(s.pids("app", "Member")), 2)


class Bundles(ServeTest):
    def test_replica_and_helper_share_the_group(self) -> None:
        s = self.serve_code(BUNDLES, "--num-cpus", "5")
        s.wait_apps()
        said = s.call("/", timeout=20).json()
        self.assertEqual(said["bundles"], [{"CPU": 1.0}, {"CPU": 2.0}])
        self.assertEqual(said["helper"], said["group"])
        self.assertEqual(said["free"], 2)

    def test_killed_replica_gets_a_new_group(self) -> None:
        s = self.serve_code(BUNDLES, "--num-cpus", "4")  # one fits, not two
        s.wait_apps()
        before = s.call("/", timeout=20).json()
        os.kill(before["pid"], signal.SIGKILL)
        wait_until("another replica", lambda: s.pids("app", "Holder") - {before["pid"]}, 30)
        s.wait_apps()
        after = s.call("/", timeout=30).json()
        self.assertNotEqual(after["pid"], before["pid"])
        self.assertNotEqual(after["group"], before["group"])
        self.assertEqual(after["helper"], after["group"])

    def test_deployment_actor_is_in_no_group(self) -> None:
        s = self.serve_code(SHARED, "--num-cpus", "3")  # it has no room in one of 1 CPU
        self.assertIs(s.call("/", timeout=20).json(), True)

    def test_no_room(self) -> None:
        s = self.start(self.write_app(BUNDLES), "--num-cpus", "2")
        s.wait_rest()
        wait_until(
            "it says why",
            lambda: "STRICT_PACK of 1 CPU; 2 CPU" in str(s.details()),
            20,
        )


SELECTED = '''
import os, ray
from ray import serve

@ray.remote(num_cpus=0, label_selector={"region": "us"})
def elsewhere():
    return ray.get_runtime_context().get_node_id()

@serve.deployment(ray_actor_options={"num_cpus": 1, "label_selector": {"region": "in(eu,uk)"}})
class Local:
    def __call__(self, request):
        me = ray.get_runtime_context().get_node_id()
        regions = {n["NodeID"]: n["Labels"].get("region") for n in ray.nodes()}
        return [regions[me], regions[ray.get(elsewhere.remote())]]

app = Local.bind()
'''


class Labels(ServeTest):
    def worker(self, join: int, *args: str) -> Server:
        return self.spawn("worker", "--address", "127.0.0.1:%d" % join, "--num-cpus", "2",
                          "--host", "127.0.0.1", "--port", "0", *args)

    def test_node_with_the_label_is_killed(self) -> None:
        port, dashboard, join = free_port(), free_port(), free_port()
        head = self.spawn(
            "head", self.write_app(SELECTED), "--num-cpus", "1", "--labels", "region=us",
            "--port", str(port), "--dashboard-port", str(dashboard),
            "--listen", "127.0.0.1:%d" % join)
        head.port, head.dashboard = port, dashboard
        head.wait_rest()

        def waits() -> bool:
            return "its labels are other ones" in str(head.details())

        wait_until("no node has the label", waits, 20)
        eu = self.worker(join, "--labels", "region=eu,disk=ssd")
        self.worker(join)
        head.wait_apps()
        self.assertEqual(head.call("/", timeout=20).json(), ["eu", "us"])
        os.kill(eu.pid, signal.SIGKILL)
        wait_until(
            "it runs nowhere else",
            lambda: head.app("app")["status"] == "UNHEALTHY" and not head.pids("app", "Local"), 30)
        self.worker(join, "--labels=region=uk")
        wait_until("it runs again", lambda: head.call("/", timeout=20).status == 200, 30)
        self.assertEqual(head.call("/", timeout=20).json(), ["uk", "us"])

    def test_labels_that_are_none(self) -> None:
        s = self.spawn("head", "--port", "0", "--dashboard-port", "0", "--listen", "127.0.0.1:0",
                       "--labels", "region")
        self.assertEqual(s.wait_exit(), 2)
        self.assertIn('--labels: expected labels as key=value,key=value; got "region"', s.output())


if __name__ == "__main__":
    main()
