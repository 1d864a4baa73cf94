/* Tables of `rserve: {health}` and `rserve: {replace}`: when a replica is taken for ill, and when one that
 * is well is replaced. */
#include "core/config/fields_health.h"

#define D "applications[].deployments[]."
#define H(member) RS_AT(struct rs_health_conf, member)

static const struct rs_field health_fields[] = {
    {"not_answering_s", RS_TYPE_SECONDS, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e6,
     .reload = RS_RELOAD_CONTROLLER, .at = H(not_answering),
     .help =
         "A replica that says nothing at all for so long, although it was asked how it does, is "
         "killed and replaced: it is stopped (SIGSTOP), or hangs in a call that does not give "
         "up the interpreter's lock. After a tenth of that it gets no requests while others "
         "can take them. null: three times what health_check_period_s and health_check_timeout_s "
         "are together."},
    {"stuck_factor", RS_TYPE_REAL, .def = "10", .max = 1e6, .reload = RS_RELOAD_CONTROLLER,
     .at = H(stuck_factor),
     .help = "A replica that has requests and brings none forward for so many times its own 99th "
             "percentile is stuck, and replaced. Time in which it waits for other deployments does "
             "not count. 0: that is not looked at."},
    {"stuck_after_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .def = "60", .max = 1e6,
     .reload = RS_RELOAD_CONTROLLER, .at = H(stuck_after),
     .help = "But not before it has been so for this long, three times the longest request that "
             "the deployment ever finished, and the request_timeout_s that holds for it."},
    {"stuck_min_requests", RS_TYPE_INT, .def = "20", .min = 1, .max = 1e6,
     .reload = RS_RELOAD_CONTROLLER, .at = H(stuck_min_requests),
     .help = "And not before the deployment has finished so many: until then nobody knows how "
             "long its requests take."},
    {"slow_factor", RS_TYPE_REAL, .def = "3", .max = 1e6, .reload = RS_RELOAD_CONTROLLER,
     .at = H(slow_factor),
     .help = "A replica whose median latency is above so many times that of its siblings on the "
             "node, and out of their range, in three windows in a row, gets a tenth of its "
             "requests until it is no longer so. Needs three siblings of its version; not where "
             "replicas have models of their own, or a request router chooses. 0: that is not "
             "looked at."},
    {"slow_window_s", RS_TYPE_SECONDS, .flags = RS_F_ABOVE, .def = "10", .max = 1e6,
     .reload = RS_RELOAD_CONTROLLER, .at = H(slow_window), .help = "How long a window is."},
    {"slow_min_requests", RS_TYPE_INT, .def = "20", .min = 1, .max = 1e6,
     .reload = RS_RELOAD_CONTROLLER, .at = H(slow_min_requests),
     .help =
         "Nothing is said of a replica that finished fewer in a window; of one that gets a tenth "
         "of its requests: fewer than a tenth of that."},
    {"slow_replace_after_s", RS_TYPE_SECONDS, .flags = RS_F_NULL | RS_F_ABOVE, .def = "300",
     .max = 1e6, .reload = RS_RELOAD_CONTROLLER, .at = H(slow_replace_after),
     .help = "One that has been slow for so long is replaced, the new one first. null: never."},
    {"max_ejected_percent", RS_TYPE_INT, .def = "20", .max = 100, .reload = RS_RELOAD_CONTROLLER,
     .at = H(max_ejected_percent),
     .help = "Of a deployment's replicas on a node no more than this share, but one at least, get "
             "fewer requests, or are replaced for being stuck or slow, at a time. When all are "
             "slow, it is not the replicas. 0: none gets fewer requests, and none is replaced for "
             "being slow or stuck."},
};
const struct rs_object rs_object_health =
    RS_OBJECT(D "rserve.health",
              "When a replica is taken for ill, beside what health_check_period_s and "
              "health_check_timeout_s say. See docs/health.md.",
              health_fields, true);

#define R(member) RS_AT(struct rs_replace_conf, member)

static const struct rs_field replace_fields[] = {
    {"memory", RS_TYPE_BYTES, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e18,
     .reload = RS_RELOAD_CONTROLLER, .at = R(memory),
     .help = "Resident memory of the process, e.g. \"2GiB\"."},
    {"memory_growth", RS_TYPE_BYTES, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e18,
     .reload = RS_RELOAD_CONTROLLER, .at = R(memory_growth),
     .help = "How much more of it than a minute after it was ready."},
    {"age_s", RS_TYPE_SECONDS, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e9,
     .reload = RS_RELOAD_CONTROLLER, .at = R(age), .help = "Since it was ready."},
    {"requests", RS_TYPE_INT, .flags = RS_F_NULL, .min = 1, .max = 2e9,
     .reload = RS_RELOAD_CONTROLLER, .at = R(requests), .help = "That it has ended."},
    {"jitter_percent", RS_TYPE_INT, .def = "10", .max = 90, .reload = RS_RELOAD_CONTROLLER,
     .at = R(jitter_percent),
     .help = "Age and requests are less by up to so much, for each replica by another share, so "
             "that replicas which began together do not go together."},
};
const struct rs_object rs_object_replace = RS_OBJECT(
    D "rserve.replace",
    "A leak guard: a replica that reaches one of these is replaced, one at a time, the new "
    "one first where there is room, and no request is lost.",
    replace_fields, true);
