#!/usr/bin/env python3
"""Asks Ray Serve itself how many replicas it would have: writes decisions.txt, which the unit test
`autoscale_ray` replays.

    pip install "ray[serve]==2.60.0"      # in a virtual environment of its own
    python3 generate.py > decisions.txt

Each case is a configuration and a series of steps, drawn from a fixed seed: after `ms` so many
replicas run and so many requests are there; Ray's DeploymentAutoscalingState, with its policy,
factors, delays, gangs and bounds, says the number that it wants. Nothing of Ray is started.
Left out are inputs where Ray's answer is the rounding of floating point (9 requests, 3 per
replica, 7 replicas: it wants 4).
"""

import math
import random
import sys
import types
from fractions import Fraction

import ray.serve._private.autoscaling_state as autoscaling_state
import ray.serve.autoscaling_policy as policies
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig

CASES, STEPS, SEED = 72, 30, 2600


class Clock:
    """In the place of the module `time`."""

    def __init__(self):
        self.ms = 1_000_000_000

    def time(self):
        return self.ms / 1000

    def monotonic(self):
        return self.ms / 1000


class NoGauge:
    def __init__(self, *args, **kwargs):
        pass

    def set(self, *args, **kwargs):
        pass


def ray_is_exact(config, running, total):
    """False: another number than that of exact arithmetic would come out of floats."""
    if running == 0:
        return True
    per = Fraction(str(config.target_ongoing_requests))
    exact = Fraction(str(total)) / per
    floats = running * (total / (config.target_ongoing_requests * running))
    factor = config.get_upscaling_factor() if floats > running else config.get_downscaling_factor()
    scaled = running + Fraction(str(factor)) * (exact - running)
    return (math.ceil(exact) == math.ceil(floats)
            and math.ceil(scaled) == math.ceil(running + factor * (floats - running)))


def draw_config(r, gang):
    lower = r.choice([0, 0, 1, 1, 2, 3])
    upper = max(lower, r.choice([1, 5, 10, 20, 20, 100, 100]), 1)
    if gang > 1:
        lower = max(lower, 1)
        lower, upper = lower * gang, max(lower, upper) * gang
    zero = r.choice([None, 0, 1.5, 20])
    return AutoscalingConfig(
        min_replicas=lower, max_replicas=upper,
        target_ongoing_requests=r.choice([0.5, 1, 1, 2, 2, 3, 10]),
        upscaling_factor=r.choice([None, 1, 0.3, 0.5, 1.5, 3]),
        downscaling_factor=r.choice([None, 1, 0.01, 0.3, 0.5, 2]),
        smoothing_factor=r.choice([1, 1, 0.6]),
        upscale_delay_s=r.choice([0, 0, 0.5, 3, 30]),
        downscale_delay_s=r.choice([0, 1, 5, 600]),
        downscale_to_zero_delay_s=zero)


def state_of(config, policy, gang, start):
    """Ray's state of a deployment that has this configuration and wants `start` replicas."""
    info = types.SimpleNamespace(
        deployment_config=types.SimpleNamespace(
            autoscaling_config=config,
            gang_scheduling_config=types.SimpleNamespace(gang_size=gang) if gang > 1 else None),
        target_capacity=None, target_capacity_direction=None, config_changed=lambda other: True)
    autoscaling_state._resolve_policy_callable = lambda _: policy
    state = autoscaling_state.DeploymentAutoscalingState(DeploymentID("D", "app"))
    return state, state.register(info, start)


def run_case(r, number, clock):
    gang = r.choice([1, 1, 1, 1, 2, 4])
    custom = number % 3 == 2
    config = draw_config(r, gang)
    wanted = [0.0]

    def policy(ctx):
        return wanted[0], {"mine": ctx.current_num_replicas}

    state, target = state_of(config, policy if custom else policies.default_autoscaling_policy,
                             gang, r.choice([0, 1, 2, 4, 9]) * gang)
    print("case", number, config.min_replicas, config.max_replicas, config.target_ongoing_requests,
          config.get_upscaling_factor(), config.get_downscaling_factor(), config.upscale_delay_s,
          config.downscale_delay_s,
          -1 if config.downscale_to_zero_delay_s is None else config.downscale_to_zero_delay_s,
          gang, "custom" if custom else "built-in", target)
    running, total = r.choice([0, target]), 0.0
    for _ in range(STEPS):
        ms = r.choice([100, 100, 100, 500, 1000, 5000, 31000])
        clock.ms += ms
        if running != target and r.random() < 0.6:  # they come, or go
            running += max(1, abs(target - running) // 2) * (1 if target > running else -1)
        elif r.random() < 0.04:  # all die
            running = 0
        while True:
            if r.random() < 0.5:
                total = r.choice([0, 0, r.randint(1, 9), r.randint(1, 60), r.random() * 20,
                                  target * config.target_ongoing_requests])
            total = round(total, 3)
            if ray_is_exact(config, running, total):
                break
            total += 0.001
        if custom:
            wanted[0] = r.choice([0, target, target, r.randint(0, 12), round(r.random() * 12, 2)])
        state._running_replicas = [None] * running
        state.get_total_num_requests = lambda: total
        target = state.get_decision_num_replicas(target)
        print("step", ms, running, total, wanted[0] if custom else "-", target)


def main():
    r, clock = random.Random(SEED), Clock()
    autoscaling_state.metrics = types.SimpleNamespace(Gauge=NoGauge)
    autoscaling_state.time = policies.time = clock
    print("# Ray Serve 2.60.0; generate.py in this folder, seed", SEED)
    print("# case N min max target_ongoing upscaling downscaling upscale_delay downscale_delay"
          " to_zero_delay gang policy replicas")
    print("# step ms running requests policy_wants replicas")
    for number in range(CASES):
        run_case(r, number, clock)


if __name__ == "__main__":
    sys.exit(main())
