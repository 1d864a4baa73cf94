#!/usr/bin/env python3
"""docs/environment.md is what the table here says, and the code reads what it says is honoured.

check_environment.py SOURCE_ROOT
check_environment.py --markdown > docs/environment.md
"""

import difflib
import os
import re
import sys

#: Name without RAY_SERVE_ (with a `=`: the whole name), default, meaning. Times are in seconds.
HONOURED = (
    ("=RAY_ADDRESS", "unset", "The node that programs and the command line connect to."),
    (
        "=RAY_DASHBOARD_ADDRESS",
        "http://127.0.0.1:8265",
        "The REST API that `serve status`, `config`, `deploy`, `delete` and `shutdown` ask.",
    ),
    (
        "=RAY_PROMETHEUS_HEADERS",
        "{}",
        "Headers of the requests of policies with `PrometheusQueryMixin`, a JSON object.",
    ),
    ("=RAY_PROMETHEUS_HOST", "unset", "Where those policies ask, if they name no address."),
    (
        "DEFAULT_HTTP_HOST",
        "127.0.0.1",
        "Where HTTP is served when a program starts Serve and names no host.",
    ),
    (
        "FORCE_LOCAL_TESTING_MODE",
        "0",
        "1: `serve.run` runs applications inside the program, for unit tests.",
    ),
    (
        "HTTP_KEEP_ALIVE_TIMEOUT_S",
        "0",
        "More than 0: replaces `keep_alive_timeout_s` of the Serve that a program starts.",
    ),
    ("LOG_ENCODING", "TEXT", "TEXT or JSON, where `logging_config` says nothing."),
    (
        "LOG_TO_STDERR",
        "1",
        "0: replicas with a `logs_dir` write there only, and nothing to the node's log.",
    ),
    (
        "RECORD_AUTOSCALING_STATS_TIMEOUT_S",
        "10",
        "How long `record_autoscaling_stats` of a replica may take.",
    ),
    (
        "RUN_SYNC_IN_THREADPOOL",
        "1",
        "0: plain `def` methods run on the replica's event loop and hold everything else up.",
    ),
)

#: The same, with what rserve does instead.
IGNORED = (
    ("AGGREGATE_METRICS_AT_CONTROLLER", "The node counts requests exactly; nothing is sampled."),
    ("ASYNC_INFERENCE_TASK_QUEUE_METRIC_PUSH_INTERVAL_S", "As above."),
    ("AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR", "As above."),
    ("BATCH_SIZE_BUCKETS", "Histograms have fixed buckets."),
    ("BATCH_UTILIZATION_BUCKETS_PERCENT", "Histograms have fixed buckets."),
    ("COLLECT_AUTOSCALING_METRICS_ON_HANDLE", "The node counts requests exactly."),
    ("COLUMNAR_AUTOSCALING_METRICS", "The node counts requests exactly."),
    ("COMPACTION_MAX_BACKOFF_TIME_S", "Replicas are not moved to empty a node."),
    ("COMPACTION_TIMEOUT_S", "Replicas are not moved to empty a node."),
    ("COMPACT_LONG_POLL_METRIC_TAGS", "There is no long poll."),
    ("CONTROLLER_CALLBACK_IMPORT_PATH", "The controller is no Python program."),
    ("CONTROLLER_MAX_CONCURRENCY", "The controller has no limit of calls."),
    ("CONTROLLER_METRICS_INCLUDE_HIGH_CARDINALITY_TAGS", "Tags are bounded."),
    ("CONTROL_LOOP_INTERVAL_S", "The controller acts when something happens."),
    ("DEPLOYMENT_ACTOR_HEALTH_CHECK_PERIOD_S", "A process that dies is seen at once."),
    ("DEPLOYMENT_ACTOR_HEALTH_CHECK_TIMEOUT_S", "A process that dies is seen at once."),
    ("DEPLOYMENT_ACTOR_HEALTH_CHECK_UNHEALTHY_THRESHOLD", "A process that dies is seen at once."),
    ("DIRECT_INGRESS_MAX_GRPC_PORT", "The node's own ingress is the direct one."),
    ("DIRECT_INGRESS_MAX_HTTP_PORT", "The node's own ingress is the direct one."),
    ("DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "The node's own ingress is the direct one."),
    ("DIRECT_INGRESS_MIN_GRPC_PORT", "The node's own ingress is the direct one."),
    ("DIRECT_INGRESS_MIN_HTTP_PORT", "The node's own ingress is the direct one."),
    ("DIRECT_INGRESS_PORT_RETRY_COUNT", "The node's own ingress is the direct one."),
    ("DIRECT_INGRESS_SHUTDOWN_BUFFER_S", "The node's own ingress is the direct one."),
    ("ENABLE_DIRECT_INGRESS", "The node's own ingress is the direct one."),
    ("ENABLE_HAPROXY_OPTIMIZED_CONFIG", "No HAProxy is needed."),
    ("ENABLE_HA_PROXY", "No HAProxy is needed; this goes for every `RAY_SERVE_HAPROXY_*`."),
    ("ENABLE_MEMORY_PROFILING", "Use memray on the replica's process."),
    ("ENABLE_PROXY_GC_OPTIMIZATIONS", "The ingress is C."),
    ("ENABLE_TASK_EVENTS", "There are no task events."),
    ("EVENT_LOOP_MONITORING_INTERVAL_S", "No event loop is measured."),
    ("FAIL_ON_RANK_ERROR", "Ranks come from one place."),
    ("FALLBACK_PROXY_GRPC_PORT", "No HAProxy is needed."),
    ("FALLBACK_PROXY_HTTP_PORT", "No HAProxy is needed."),
    ("FORCE_STOP_UNHEALTHY_REPLICAS", "Unhealthy replicas stop gracefully, within their timeout."),
    ("FREEZE_GC_ON_STARTUP", "The zygote freezes what replicas share."),
    ("GRPC_MAX_MESSAGE_SIZE", "There is no gRPC ingress."),
    ("HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "The node counts requests exactly."),
    ("HIGH_PRIORITY_CUSTOM_RESOURCES", "Placement weighs all resources alike."),
    ("HTTP_PROXY_CALLBACK_IMPORT_PATH", "Add middlewares to the application."),
    ("INGRESS_REQUEST_ROUTER_FORWARD_BODY", "No HAProxy is needed."),
    ("INGRESS_REQUEST_ROUTER_METRICS_ENABLED", "No HAProxy is needed."),
    ("INGRESS_REQUEST_ROUTER_OPT_HEADERS_FIELD", "No HAProxy is needed."),
    ("INGRESS_ROUTER_REPLICAS_PER_NODE", "No HAProxy is needed."),
    ("KV_TIMEOUT_S", "There is no key-value store."),
    ("LOG_CLIENT_ADDRESS", "The node's access log has the client's address."),
    ("MAX_CACHED_HANDLES", "Handles cost nothing; none are cached."),
    (
        "MAX_PER_REPLICA_RETRY_COUNT",
        "Fixed: constructors are tried 3 times the target, at most `max_constructor_retry_count`.",
    ),
    ("MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "No replica is asked for its queue."),
    ("METRICS_EXPORT_INTERVAL_MS", "Figures are sent when they change, at most every 100 ms."),
    ("MIN_HANDLE_METRICS_TIMEOUT_S", "The node counts requests exactly."),
    ("MODEL_LOAD_LATENCY_BUCKETS_MS", "Histograms have fixed buckets."),
    ("MULTIPLEXED_MODEL_ID_MATCHING_TIMEOUT_S", "A free replica with the model is known at once."),
    ("NODE_COMPACTION_DELAY_S", "Replicas are not moved to empty a node."),
    ("PORT_QUARANTINE_S", "The node's own ingress is the direct one."),
    ("PROXY_GC_THRESHOLD", "The ingress is C."),
    ("PROXY_HEALTH_CHECK_PERIOD_S", "The ingress is part of the node."),
    ("PROXY_HEALTH_CHECK_TIMEOUT_S", "The ingress is part of the node."),
    ("PROXY_MIN_DRAINING_PERIOD_S", "A node is drained when its requests are done."),
    ("PROXY_PREFER_LOCAL_AZ_ROUTING", "There are no availability zones."),
    ("PROXY_PREFER_LOCAL_NODE_ROUTING", "Requests stay on their node where there is room."),
    ("PROXY_READY_CHECK_TIMEOUT_S", "The ingress is part of the node."),
    ("PROXY_USE_GRPC", "Requests travel as rserve's own frames."),
    ("QUEUE_LENGTH_CACHE_TIMEOUT_S", "Queues are exact."),
    ("QUEUE_LENGTH_RESPONSE_DEADLINE_S", "No replica is asked for its queue."),
    ("REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "The node counts requests exactly."),
    ("REPLICA_GRPC_MAX_MESSAGE_LENGTH", "Requests travel as rserve's own frames."),
    ("REPLICA_MAX_PROCESSING_LATENCY_NUM_BUCKETS", "This figure is not kept."),
    ("REPLICA_MAX_PROCESSING_LATENCY_REPORT_INTERVAL_S", "This figure is not kept."),
    ("REPLICA_MAX_PROCESSING_LATENCY_WINDOW_S", "This figure is not kept."),
    ("REPLICA_STARTUP_SHUTDOWN_LATENCY_BUCKETS_MS", "Histograms have fixed buckets."),
    ("REPLICA_UTILIZATION_NUM_BUCKETS", "This figure is not kept."),
    ("REPLICA_UTILIZATION_REPORT_INTERVAL_S", "This figure is not kept."),
    ("REPLICA_UTILIZATION_WINDOW_S", "This figure is not kept."),
    ("REQUEST_LATENCY_BUCKETS_MS", "Histograms have fixed buckets."),
    ("REQUEST_PATH_LOG_BUFFER_SIZE", "Each record is written at once."),
    ("REQUEST_PROCESSING_TIMEOUT_S", "Use `request_timeout_s`, as with Ray."),
    ("RETAINED_DEAD_REPLICAS", "The number of dead replicas that are told is fixed."),
    ("ROUTER_QUEUE_LEN_GAUGE_THROTTLE_S", "The router is C."),
    ("ROUTER_RETRY_BACKOFF_MULTIPLIER", "A request waits for a free slot; nothing is retried."),
    ("ROUTER_RETRY_INITIAL_BACKOFF_S", "A request waits for a free slot; nothing is retried."),
    ("ROUTER_RETRY_MAX_BACKOFF_S", "A request waits for a free slot; nothing is retried."),
    ("RUN_ROUTER_IN_SEPARATE_LOOP", "The router is C."),
    ("RUN_USER_CODE_IN_SEPARATE_THREAD", "User code has one event loop, which reads requests too."),
    ("SESSION_ID_HEADER_KEY", "The header is `x-session-id`."),
    ("SHUTDOWN_TIER_TIMEOUT_S", "`graceful_shutdown_timeout_s` alone counts."),
    ("SLOW_STARTUP_WARNING_S", "Status always says what a replica waits for."),
    ("SLOW_STARTUP_WARNING_PERIOD_S", "Status always says what a replica waits for."),
    ("STATUS_GAUGE_REPORT_INTERVAL_S", "Gauges are always current."),
    ("STOP_FAILED_ROLLING_UPDATES", "A failed update always stops, and the old replicas stay."),
    ("THROUGHPUT_OPTIMIZED", "There is one mode, and it is fast."),
    (
        "TRACING_EXPORTER_IMPORT_PATH",
        "`traceparent` is passed on; spans are not exported. TracingConfig has it as its default.",
    ),
    ("TRACING_SAMPLING_RATIO", "As above."),
    ("USE_COMPACT_SCHEDULING_STRATEGY", "See placement in docs/architecture.md."),
    ("USE_GRPC_BY_DEFAULT", "Requests travel as rserve's own frames."),
    ("USE_PACK_SCHEDULING_STRATEGY", "See placement in docs/architecture.md."),
    ("WORKER_PROXY_GRPC_PORT", "All nodes use the same ports."),
    ("WORKER_PROXY_HTTP_PORT", "All nodes use the same ports."),
)

SOURCES = ("cmd", "core", "net", "sched")


def full(name):
    return name[1:] if name.startswith("=") else "RAY_SERVE_" + name


def markdown():
    out = [
        "# Environment variables of Ray Serve",
        "",
        "Which of Ray's variables rserve heeds. Made of the table in",
        "tests/lint/check_environment.py; do not edit. Python replicas have the environment of",
        "their node, with `env_vars` of their runtime_env over it.",
        "",
        "## Honoured",
        "",
        "Booleans are 1 and 0, times are in seconds.",
        "",
        "| variable | default | what it does |",
        "| --- | --- | --- |",
    ]
    out += ["| `%s` | %s | %s |" % (full(n), d, what) for n, d, what in HONOURED]
    out += ["", "## Ignored", "", "| variable | because |", "| --- | --- |"]
    out += ["| `%s` | %s |" % (full(n), why) for n, why in IGNORED]
    return "\n".join(out) + "\n"


def read_by(root):
    """Names that the code reads out of the environment."""
    found = set()
    call = re.compile(r'(?:getenv\(|environ\.get\(\s*|environ\[|environ\.pop\()\s*"(RAY_[A-Z_]+)"')
    for folder in SOURCES:
        for at, _, files in os.walk(os.path.join(root, folder)):
            for name in files:
                if name.endswith((".c", ".py")):
                    with open(os.path.join(at, name), encoding="utf-8") as f:
                        found.update(call.findall(f.read()))
    return found


def main(root):
    problems = []
    honoured = [full(n) for n, _, _ in HONOURED]
    ignored = [full(n) for n, _ in IGNORED]
    names = [n for n, _, _ in HONOURED] + [n for n, _ in IGNORED]
    for name in sorted({n for n in names if names.count(n) > 1}):
        problems.append("%s is in the table twice" % full(name))
    if list(honoured) != sorted(honoured, key=lambda n: ("SERVE" in n, n)):
        problems.append("the honoured ones are not in order")
    reads = read_by(root)
    for name in honoured:
        if name not in reads:
            problems.append("%s is said to be honoured, but nothing reads it" % name)
    defaults_only = {"RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH", "RAY_SERVE_TRACING_SAMPLING_RATIO"}
    for name in sorted(reads - set(honoured) - defaults_only):
        if name.startswith("RAY_SERVE_INTERNAL_"):
            continue  # set by the node itself
        kind = "ignored" if name in ignored else "missing in the table"
        problems.append("%s is read, but %s" % (name, kind))
    with open(os.path.join(root, "docs/environment.md"), encoding="utf-8") as f:
        page = f.read()
    if page != markdown():
        problems.append(
            "docs/environment.md is not what the table says: write it anew with "
            "tests/lint/check_environment.py --markdown > docs/environment.md"
        )
        problems += difflib.unified_diff(page.splitlines(), markdown().splitlines(), lineterm="")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--markdown"]:
        sys.stdout.write(markdown())
        sys.exit(0)
    sys.exit(main(*sys.argv[1:]))
