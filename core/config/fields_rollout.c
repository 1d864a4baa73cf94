/* Tables of `rserve: {rollout}`: how a new version takes the place of the old one. */
#include "core/config/fields_rollout.h"

#include "core/base/quantity.h"

#include <stdlib.h>
#include <string.h>

static const char *const too_few[] = {"wait", "promote", "rollback", NULL};
static const char *const when_full[] = {"stop_first", "wait", NULL};

const char *rs_rollout_when_full_name(enum rs_rollout_when_full v)
{
    return when_full[v];
}

/* "25%", "25 %", "0.5%": above 0, at most 100. -1: something else. */
static double percent_of(const char *text)
{
    char *end = NULL;
    double v;

    if (!text || *text < '0' || *text > '9')
        return -1;
    v = strtod(text, &end);
    end += strspn(end, " ");
    return strcmp(end, "%") == 0 && v > 0 && v <= 100 ? v : -1;
}

static double share_of_node(const struct rs_node *n)
{
    if (n->kind == RS_NODE_INT || n->kind == RS_NODE_REAL)
        return n->real > 0 && n->real <= 100 ? n->real : -1;
    return n->kind == RS_NODE_TEXT ? percent_of(n->text) : -1;
}

static double share_of(const json_t *v)
{
    return json_is_number(v) ? json_number_value(v) : percent_of(json_string_value(v));
}

static bool is_pause(const struct rs_node *n, struct rs_buf *why)
{
    if ((n->kind == RS_NODE_INT && n->real >= 1 && n->real <= 1e6) ||
        (n->kind == RS_NODE_TEXT && percent_of(n->text) > 0))
        return true;
    rs_buf_puts(why, "expected a number of replicas, or a share such as \"25%\", ");
    rs_node_show(why, n);
    return false;
}

static bool is_each(const struct rs_node *n, struct rs_buf *why)
{
    int64_t ns = 0;

    if ((n->kind == RS_NODE_INT || n->kind == RS_NODE_REAL) && n->real > 0 && n->real <= 1e9)
        return true;
    if (n->kind == RS_NODE_TEXT && rs_quantity_read(n->text, rs_units_duration, false, &ns) &&
        ns > 0)
        return true;
    rs_buf_puts(why, "expected a number of seconds > 0, or a text such as \"60s\" or \"5m\", ");
    rs_node_show(why, n);
    return false;
}

static bool are_steps(const struct rs_node *n, struct rs_buf *why)
{
    double before = 0;

    if (n->count == 0 || n->count > RS_CANARY_STEPS_MAX) {
        rs_buf_printf(why, "expected 1 to %d steps, got %zu", RS_CANARY_STEPS_MAX, n->count);
        return false;
    }
    for (size_t i = 0; i < n->count; i++) {
        double share = share_of_node(n->items[i]);

        if (share > before) {
            before = share;
            continue;
        }
        rs_buf_puts(why, "expected percentages that rise, such as [1%, 10%, 50%], ");
        rs_node_show(why, n->items[i]);
        return false;
    }
    return true;
}

#define D "applications[].deployments[]."
#define AN(member) RS_AT(struct rs_rollout_analysis_conf, member)

#define ERROR_RATE                                                                                 \
    "Share of the new version's requests that may fail, from 0 to 1. More than that does harm if " \
    "it "                                                                                          \
    "is also more than of the old version's. 1: not looked at."
#define P99_RATIO                                                                                  \
    "How many times the old version's 99th percentile of latency the new one's may be; null: not " \
    "looked at."

static const struct rs_field analysis_fields[] = {
    {"max_error_rate", RS_TYPE_REAL, .def = "0", .max = 1, .reload = RS_RELOAD_LIGHT,
     .at = AN(max_error_rate), .help = ERROR_RATE},
    {"max_p99_ratio", RS_TYPE_REAL, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e6,
     .reload = RS_RELOAD_LIGHT, .at = AN(max_p99_ratio), .help = P99_RATIO},
    {"min_requests", RS_TYPE_INT, .def = "100", .min = 1, .max = 1e9, .reload = RS_RELOAD_LIGHT,
     .at = AN(min_requests),
     .help = "So many requests the new version must have ended before a pause is over by itself. "
             "Clear harm ends the roll before."},
};
const struct rs_object rs_object_rollout_analysis = RS_OBJECT(
    D "rserve.rollout.analysis",
    "What the new version is judged by at the pause: it goes on by itself when all is well, and "
    "back to the old version when it is not.",
    analysis_fields, true);

#define CA(member) RS_AT(struct rs_rollout_canary_conf, member)

static const struct rs_field canary_fields[] = {
    {"steps", RS_TYPE_LIST, RS_TYPE_ANY, .flags = RS_F_REQUIRED, .check = are_steps,
     .reload = RS_RELOAD_LIGHT, .at = CA(steps_json),
     .help = "Shares of the requests, in percent, that the new version gets one after the other: "
             "[1%, 10%, 50%]. After the last one it gets all."},
    {"each", RS_TYPE_ANY, .flags = RS_F_NULL, .def = "60", .check = is_each,
     .reload = RS_RELOAD_LIGHT, .at = CA(each_json),
     .help = "How long a step lasts: seconds, or a text such as \"5m\"."},
    {"max_error_rate", RS_TYPE_REAL, .def = "0", .max = 1, .reload = RS_RELOAD_LIGHT,
     .at = CA(max_error_rate), .help = ERROR_RATE},
    {"max_p99_ratio", RS_TYPE_REAL, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e6,
     .reload = RS_RELOAD_LIGHT, .at = CA(max_p99_ratio), .help = P99_RATIO},
    {"min_requests", RS_TYPE_INT, .def = "50", .max = 1e9, .reload = RS_RELOAD_LIGHT,
     .at = CA(min_requests),
     .help =
         "So many requests the new version must have ended in a step before the next one. Clear "
         "harm ends it before."},
    {"too_few", RS_TYPE_CHOICE, .def = "\"wait\"", .choices = too_few, .reload = RS_RELOAD_LIGHT,
     .at = CA(too_few),
     .help = "What happens to a step that is over with fewer requests than that: wait goes on with "
             "it until there are enough, promote takes the next step, rollback goes back."},
};
const struct rs_object rs_object_rollout_canary = RS_OBJECT(
    D "rserve.rollout.canary",
    "The new version gets a part of the requests, chosen by a hash of each, and is judged against "
    "the old one by a sequential test. What fails it rolls back by itself.",
    canary_fields, true);

#define R(member) RS_AT(struct rs_rollout_conf, member)

static const struct rs_field rollout_fields[] = {
    {"when_full", RS_TYPE_CHOICE, .def = "\"stop_first\"", .choices = when_full,
     .reload = RS_RELOAD_LIGHT, .at = R(when_full),
     .help = "Where there is no room for a new replica beside the old ones: stop_first stops as "
             "many old ones as rolling_update_percentage says and starts new ones in their place; "
             "wait leaves the old ones alone until there is room."},
    {"pause_after", RS_TYPE_ANY, .flags = RS_F_NULL, .check = is_pause, .reload = RS_RELOAD_LIGHT,
     .at = R(pause_json),
     .help = "So much of the old version is replaced, and then nothing until `rserve deploy "
             "--resume APP` or `--abort APP`: a number of replicas, or a share such as \"25%\". "
             "null: no pause."},
    {"min_ready_s", RS_TYPE_SECONDS, .def = "0", .max = 1e6, .reload = RS_RELOAD_LIGHT,
     .at = R(min_ready),
     .help = "So long a new replica must be up without a break before an old one goes for it."},
    {"deadline_s", RS_TYPE_SECONDS, .flags = RS_F_NULL | RS_F_ABOVE, .def = "600", .max = 1e9,
     .reload = RS_RELOAD_LIGHT, .at = R(deadline),
     .help = "When no further new replica is ready for so long the roll stops and the old version "
             "serves on. Waiting for room or for a resume does not count. null: never."},
    {"analysis", RS_TYPE_OBJECT, .flags = RS_F_NULL, .object = &rs_object_rollout_analysis,
     .at = R(analysis), .help = "What the new version is judged by at the pause."},
    {"canary", RS_TYPE_OBJECT, .flags = RS_F_NULL, .object = &rs_object_rollout_canary,
     .at = R(canary), .help = "The new version gets its share of the requests step by step."},
};
const struct rs_object rs_object_rollout =
    RS_OBJECT(D "rserve.rollout",
              "How a new version takes the place of the old one. Up to max_surge_percent more new "
              "replicas start; for each that is ready an old one finishes its requests and goes. A "
              "version whose replicas do not become ready stops the roll, and the old one serves "
              "on with as many replicas as are wanted. Unknown keys are errors.",
              rollout_fields, true);

void rs_rollout_conf_fill(struct rs_rollout_conf *r)
{
    r->pause_percent = r->pause_replicas = 0;
    if (json_is_integer(r->pause_json))
        r->pause_replicas = (unsigned)json_integer_value(r->pause_json);
    else if (json_is_string(r->pause_json))
        r->pause_percent = percent_of(json_string_value(r->pause_json));
    r->canary.n_steps = 0;
    for (size_t i = 0; i < json_array_size(r->canary.steps_json) && i < RS_CANARY_STEPS_MAX; i++)
        r->canary.steps[r->canary.n_steps++] = share_of(json_array_get(r->canary.steps_json, i));
    r->canary.each = rs_config_duration(r->canary.each_json);
}
