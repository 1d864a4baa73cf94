#include "sched/why-text-internal.h"

#include "core/base/alloc.h"

#include <stdarg.h>
#include <string.h>

enum { REPLICAS_SHOWN = 4 };

/* --- pieces -------------------------------------------------------------------------------------- */

void rs_tell(struct rs_telling *t, const char *fmt, ...)
{
    rs_auto(rs_freep) char *text = NULL;
    va_list args;

    va_start(args, fmt);
    text = rs_vasprintf(fmt, args);
    va_end(args);
    json_array_append_new(t->lines, json_string(text));
}

void rs_tell_next(struct rs_telling *t, const char *fmt, ...)
{
    rs_auto(rs_freep) char *text = NULL;
    va_list args;

    va_start(args, fmt);
    text = rs_vasprintf(fmt, args);
    va_end(args);
    rs_buf_clear(&t->next);
    rs_buf_puts(&t->next, text);
}

/* "3.2 s", "45 s", "12 min" */
const char *rs_tell_duration(char out[24], double seconds)
{
    if (seconds < 10)
        snprintf(out, 24, "%.1f s", seconds);
    else if (seconds < 180)
        snprintf(out, 24, "%.0f s", seconds);
    else if (seconds < 7200)
        snprintf(out, 24, "%.0f min", seconds / 60);
    else
        snprintf(out, 24, "%.1f h", seconds / 3600);
    return out;
}

/* Each line of what a process said. */
void rs_tell_quote_more(struct rs_telling *t, const char *key)
{
    if (strchr(rs_json_str(t->r, key, ""), '\n'))
        rs_tell_quote(t, key);
}

void rs_tell_quote(struct rs_telling *t, const char *key)
{
    const char *text = rs_json_str(t->r, key, "");

    for (size_t n; *text; text += n + (text[n] == '\n')) {
        n = strcspn(text, "\n");
        rs_tell(t, "%.*s", (int)n, text);
    }
}

/* The last line: of a traceback the exception. */
const char *rs_tell_last_line(const struct rs_telling *t, const char *key)
{
    const char *text = rs_json_str(t->r, key, ""), *nl = strrchr(text, '\n');

    text = nl ? nl + 1 : text;
    return text + strspn(text, " ");
}

/* --- builds -------------------------------------------------------------------------------------- */

static void build_waits_for_node(struct rs_telling *t)
{
    rs_tell(t, "The application waits to be imported: no node is there to do it.");
    rs_tell_next(t, "Start a node: rserve worker --address HEAD:6379.");
}

static void importing(struct rs_telling *t)
{
    char took[24];
    double since = rs_tell_real(t, "since_s");

    rs_tell(t, "%s is being imported on %s, for %s so far.", rs_tell_str(t, "import_path"),
            rs_tell_str(t, "node"), rs_tell_duration(took, since));
    if (rs_json_bool(t->r, "live", false))
        rs_tell(t, "What was deployed before goes on running meanwhile.");
    if (since >= 60)
        rs_tell_next(
            t, "That is long: the module does something slow when it is imported. See what it "
               "prints: rserve logs.");
    else
        rs_tell_next(t, "Nothing: replicas are started when it is done.");
}

static void environment(struct rs_telling *t)
{
    char took[24];

    rs_tell(t, "Its environment is being built on %s, for %s so far.", rs_tell_str(t, "node"),
            rs_tell_duration(took, rs_tell_real(t, "since_s")));
    rs_tell_quote(t, "message");
    rs_tell_next(t,
                 "Nothing: it goes on by itself; what was built once is kept for the next time.");
}

static void failed_build(struct rs_telling *t, const char *what)
{
    const char *first = strchr(rs_json_str(t->r, "error", ""), '\n');

    rs_tell(t, "%s: %s", what, rs_tell_last_line(t, "error"));
    if (first && strchr(first + 1, '\n')) /* more than what is said anyway */
        rs_tell_quote(t, "error");
    if (rs_json_bool(t->r, "live", false))
        rs_tell(t, "What was deployed before goes on running.");
}

static void build_failed(struct rs_telling *t)
{
    failed_build(t, "The application cannot be deployed");
    rs_tell_next(t, "Correct it and deploy again (nothing is tried again by itself).");
}

static void environment_failed(struct rs_telling *t)
{
    failed_build(t, "Its environment cannot be built");
    rs_tell_next(
        t, "Correct runtime_env, or reach the package index from this machine, and deploy again.");
}

/* --- starting ------------------------------------------------------------------------------------ */

static void replicas(struct rs_telling *t, const char *key)
{
    const json_t *list = json_object_get(t->r, key), *one;
    size_t i;

    json_array_foreach (list, i, one) {
        const char *message = rs_json_str(one, "message", "");
        char took[24];
        double since = rs_json_num(one, "since_s", 0);

        if (i == REPLICAS_SHOWN)
            rs_tell(t, "and %zu more", json_array_size(list) - i);
        if (i >= REPLICAS_SHOWN)
            break;
        if (since > 0)
            rs_tell(t, "replica %s on %s: for %s, pid %lld%s%s", rs_json_str(one, "replica", "?"),
                    rs_json_str(one, "node", "?"), rs_tell_duration(took, since),
                    (long long)rs_json_int(one, "pid", 0), *message ? ": " : "", message);
        else
            rs_tell(t, "replica %s on %s%s%s", rs_json_str(one, "replica", "?"),
                    rs_json_str(one, "node", "?"), *message ? ": " : "", message);
    }
}

static void starting(struct rs_telling *t)
{
    rs_tell(t, "%lld of %lld replica%s %s starting.", (long long)rs_tell_int(t, "missing"),
            (long long)rs_tell_int(t, "wanted"), rs_tell_s(rs_tell_int(t, "wanted")),
            rs_tell_int(t, "missing") == 1 ? "is" : "are");
    replicas(t, "replicas");
    rs_tell_next(t, "Nothing: it takes as long as the constructor does.");
}

static void starting_slowly(struct rs_telling *t)
{
    rs_tell(t, "%lld of %lld replica%s ha%s been starting for more than 30 s.",
            (long long)rs_tell_int(t, "missing"), (long long)rs_tell_int(t, "wanted"),
            rs_tell_s(rs_tell_int(t, "wanted")), rs_tell_int(t, "missing") == 1 ? "s" : "ve");
    replicas(t, "replicas");
    rs_tell_next(
        t, "See what the constructor is at: rserve logs, or its stack on that node: py-spy dump "
           "--pid PID. A model that loads for long is no fault.");
}

static void not_started_yet(struct rs_telling *t)
{
    rs_tell(t, "%lld of %lld replica%s ha%s a node, which has not started %s yet.",
            (long long)rs_tell_int(t, "missing"), (long long)rs_tell_int(t, "wanted"),
            rs_tell_s(rs_tell_int(t, "wanted")), rs_tell_int(t, "missing") == 1 ? "s" : "ve",
            rs_tell_int(t, "missing") == 1 ? "it" : "them");
    rs_tell_next(t,
                 "Nothing: the node was told a moment ago. If it stays so, see whether it is well: "
                 "rserve status --events.");
}

static void start_fails(struct rs_telling *t)
{
    int64_t failures = rs_tell_int(t, "failures"), limit = rs_tell_int(t, "limit");

    if (rs_json_bool(t->r, "ever_ran", false)) {
        rs_tell(t, "Replicas fail to start (%lld time%s so far), though some of this version ran.",
                (long long)failures, rs_tell_s(failures));
        rs_tell_quote(t, "error");
        rs_tell_next(
            t, "It is tried again and again, with a pause of up to 10 s. If nothing around it has "
               "changed, see rserve logs.");
        return;
    }
    rs_tell(t, "Replicas fail to start: %lld time%s in a row; after %lld the deploy fails.",
            (long long)failures, rs_tell_s(failures), (long long)limit);
    rs_tell_quote(t, "error");
    rs_tell_next(
        t,
        "%lld more tr%s, with pauses of up to 10 s. Correct the constructor and deploy again, "
        "it need not be waited for.",
        (long long)(limit > failures ? limit - failures : 0), limit - failures == 1 ? "y" : "ies");
}

static void start_given_up(struct rs_telling *t)
{
    rs_tell(t, "Given up: its replicas failed to start %lld times in a row: %s",
            (long long)rs_tell_int(t, "failures"), rs_tell_last_line(t, "error"));
    rs_tell_quote_more(t, "error");
    rs_tell_next(
        t, "Correct it and deploy again; the same once more is tried again when it is deployed "
           "again.");
}

static void node_waits(struct rs_telling *t)
{
    rs_tell(t, "%lld of %lld replica%s ha%s a place, but cannot start there yet.",
            (long long)rs_tell_int(t, "missing"), (long long)rs_tell_int(t, "wanted"),
            rs_tell_s(rs_tell_int(t, "wanted")), rs_tell_int(t, "missing") == 1 ? "s" : "ve");
    rs_tell_quote(t, "message");
    rs_tell_next(
        t, "It starts by itself when that is over; if it does not, see which replicas are still "
           "stopping: rserve status.");
}

/* --- health -------------------------------------------------------------------------------------- */

static void replica_died(struct rs_telling *t)
{
    int64_t up = rs_tell_int(t, "up"), wanted = rs_tell_int(t, "wanted");

    rs_tell(t, "%lld replica%s of this version died or fell ill; %lld of %lld serve now.",
            (long long)rs_tell_int(t, "deaths"), rs_tell_s(rs_tell_int(t, "deaths")), (long long)up,
            (long long)wanted);
    replicas(t, "dead");
    if (!json_array_size(json_object_get(t->r, "dead")))
        rs_tell_quote(t, "last");
    rs_tell_next(t, "%s See what it printed last: rserve logs.",
                 up < wanted ? "Others are started in their place by itself."
                             : "All are there again; it is HEALTHY as soon as the node says so.");
}

static void node_left(struct rs_telling *t)
{
    rs_tell(t, "A node left with replicas of it; %lld of %lld serve now.",
            (long long)rs_tell_int(t, "up"), (long long)rs_tell_int(t, "wanted"));
    rs_tell_quote(t, "message");
    rs_tell_next(
        t, "Replacements start by themselves where there is room. If the node should be there: "
           "start it again, rserve worker --address HEAD:6379.");
}

static void line_of_health(struct rs_telling *t, const json_t *health)
{
    rs_tell(t, "Replica %s on %s (pid %lld, %s): %s", rs_tell_str(t, "replica"),
            rs_tell_str(t, "node"), (long long)rs_tell_int(t, "pid"), rs_tell_str(t, "state"),
            rs_json_str(health, "text", rs_json_str(health, "condition", "?")));
}

/* What follows from it, and what a person may do. */
static const struct {
    const char *condition, *todo;
} ills[] = {
    {"check_failed", "See what check_health says: rserve logs."},
    {"not_answering", "Its loop is blocked, or the process is stopped: look at it with py-spy dump "
                      "--pid PID."},
    {"stuck", "Look at what its requests wait for: py-spy dump --pid PID."},
    {"slow", "Compare it with the others: its node may be busy (top), or its device throttled."},
    {"out_of_memory",
     "Give it more memory (ray_actor_options.memory, the container's limit), or let "
     "it have fewer requests at a time (max_ongoing_requests)."},
    {"dead", "See what it printed last: rserve logs."},
};

static const char *follows(const char *action)
{
    if (strcmp(action, "spare") == 0)
        return "It gets fewer requests while others can take them.";
    if (strcmp(action, "replace") == 0)
        return "Another one starts, then it finishes what it has and goes.";
    if (strcmp(action, "end") == 0)
        return "It finishes what it can, and another one takes its place.";
    return strcmp(action, "kill") == 0 ? "It is killed, and another one takes its place."
                                       : "It goes on.";
}

static void replica_ill(struct rs_telling *t)
{
    const json_t *health = json_object_get(t->r, "health");
    const char *condition = rs_json_str(health, "condition", "?"), *todo = "";

    line_of_health(t, health);
    for (size_t i = 0; i < RS_COUNT(ills); i++)
        if (strcmp(ills[i].condition, condition) == 0)
            todo = ills[i].todo;
    rs_tell_next(t, "%s %s", follows(rs_json_str(health, "action", "")), todo);
}

static void replica_worn(struct rs_telling *t)
{
    const json_t *health = json_object_get(t->r, "health");

    line_of_health(t, health);
    rs_tell_next(t, "%s It is well: this is what rserve.replace asks for.",
                 follows(rs_json_str(health, "action", "")));
}

static void node_silent(struct rs_telling *t)
{
    rs_tell(t, "Nothing was heard of %s for %.1f s, where %lld of its replicas are.",
            rs_tell_str(t, "node"), rs_tell_real(t, "silent_s"),
            (long long)rs_tell_int(t, "replicas"));
    rs_tell_next(t,
                 "After %g s it counts as lost and its replicas start elsewhere. See whether that "
                 "machine and the network to it are well.",
                 rs_tell_real(t, "limit_s"));
}

/* --- changes ------------------------------------------------------------------------------------- */

static void reconfiguring(struct rs_telling *t)
{
    rs_tell(t, "%lld replica%s take%s a new user_config (reconfigure) and serve%s meanwhile.",
            (long long)rs_tell_int(t, "replicas"), rs_tell_s(rs_tell_int(t, "replicas")),
            rs_tell_int(t, "replicas") == 1 ? "s" : "", rs_tell_int(t, "replicas") == 1 ? "s" : "");
    rs_tell_next(t, "Nothing: it takes as long as reconfigure() does.");
}

static void draining(struct rs_telling *t)
{
    rs_tell(t, "%lld replica%s finish%s what %s at and end%s then, after %g s at the latest.",
            (long long)rs_tell_int(t, "replicas"), rs_tell_s(rs_tell_int(t, "replicas")),
            rs_tell_int(t, "replicas") == 1 ? "es" : "",
            rs_tell_int(t, "replicas") == 1 ? "it is" : "they are",
            rs_tell_int(t, "replicas") == 1 ? "s" : "", rs_tell_real(t, "grace_s"));
    rs_tell_next(t, "Nothing (graceful_shutdown_timeout_s is that limit).");
}

static void deleting(struct rs_telling *t)
{
    rs_tell(t, "It is being deleted: %lld replica%s left, with %lld request%s under way.",
            (long long)rs_tell_int(t, "replicas"), rs_tell_s(rs_tell_int(t, "replicas")),
            (long long)rs_tell_int(t, "in_flight"), rs_tell_s(rs_tell_int(t, "in_flight")));
    rs_tell_next(
        t, "Nothing: it is gone when these are over (graceful_shutdown_timeout_s at the latest).");
}

static void chosen(struct rs_telling *t)
{
    char ago[24];

    rs_tell(t,
            "Replica %s on %s was chosen to go %s ago: %lld %s wanted, and it had the least to "
            "finish (%lld request%s under way%s).",
            rs_tell_str(t, "replica"), rs_tell_str(t, "node"),
            rs_tell_duration(ago, rs_tell_real(t, "ago_s")), (long long)rs_tell_int(t, "to"),
            rs_tell_int(t, "to") == 1 ? "is" : "are", (long long)rs_tell_int(t, "in_flight"),
            rs_tell_s(rs_tell_int(t, "in_flight")),
            rs_tell_int(t, "models") ? ", models loaded" : "");
    if (rs_tell_int(t, "others"))
        rs_tell(t, "Before it %lld other%s (rserve status --events).",
                (long long)rs_tell_int(t, "others"), rs_tell_s(rs_tell_int(t, "others")));
    rs_tell_next(t, "Nothing: it finishes its requests first, and no new ones reach it.");
}

static void replica_ended(struct rs_telling *t)
{
    rs_tell(t, "Replica %s on %s has ended%s.", rs_tell_str(t, "replica"), rs_tell_str(t, "node"),
            rs_json_bool(t->r, "ran", false) ? "" : " before it was ready");
    if (json_object_get(t->r, "message"))
        rs_tell_quote(t, "message");
    if (json_object_get(t->r, "log_file"))
        rs_tell_next(t, "What it printed is in %s there.", rs_tell_str(t, "log_file"));
    else
        rs_tell_next(t, "What it printed: rserve logs.");
}

static void replica_state(struct rs_telling *t)
{
    char took[24];

    rs_tell(
        t,
        "Replica %s on %s is %s%s%s: pid %lld, %lld request%s under way, %lld done, %lld failed.",
        rs_tell_str(t, "replica"), rs_tell_str(t, "node"), rs_tell_str(t, "state"),
        json_object_get(t->r, "since_s") ? ", alive for " : "",
        json_object_get(t->r, "since_s") ? rs_tell_duration(took, rs_tell_real(t, "since_s")) : "",
        (long long)rs_tell_int(t, "pid"), (long long)rs_tell_int(t, "in_flight"),
        rs_tell_s(rs_tell_int(t, "in_flight")), (long long)rs_tell_int(t, "done"),
        (long long)rs_tell_int(t, "errors"));
    if (json_object_get(t->r, "message"))
        rs_tell_quote(t, "message");
}

static void well(struct rs_telling *t)
{
    rs_tell(t, "%lld of %lld replica%s serve%s; %lld request%s under way, %lld waiting.",
            (long long)rs_tell_int(t, "running"), (long long)rs_tell_int(t, "wanted"),
            rs_tell_s(rs_tell_int(t, "wanted")), rs_tell_int(t, "running") == 1 ? "s" : "",
            (long long)rs_tell_int(t, "in_flight"), rs_tell_s(rs_tell_int(t, "in_flight")),
            (long long)rs_tell_int(t, "queued"));
}

/* --- all of them --------------------------------------------------------------------------------- */

static const struct {
    const char *cause;
    rs_tell_fn *fn;
} table[] = {
    {"build_waits_for_node", build_waits_for_node},
    {"importing", importing},
    {"environment", environment},
    {"build_failed", build_failed},
    {"environment_failed", environment_failed},
    {"no_node", rs_tell_no_node},
    {"no_room", rs_tell_no_room},
    {"no_room_together", rs_tell_no_room_together},
    {"node_waits", node_waits},
    {"starting", starting},
    {"starting_slowly", starting_slowly},
    {"not_started_yet", not_started_yet},
    {"start_fails", start_fails},
    {"start_given_up", start_given_up},
    {"replica_died", replica_died},
    {"node_left", node_left},
    {"node_silent", node_silent},
    {"replica_ill", replica_ill},
    {"replica_worn", replica_worn},
    {"rollout_goes_on", rs_tell_rollout_goes_on},
    {"rollout_no_room", rs_tell_rollout_no_room},
    {"rollout_stop_first", rs_tell_rollout_stop_first},
    {"rollout_paused", rs_tell_rollout_paused},
    {"rollout_canary", rs_tell_rollout_canary},
    {"rollout_stopped", rs_tell_rollout_stopped},
    {"reconfiguring", reconfiguring},
    {"draining", draining},
    {"deleting", deleting},
    {"chosen", chosen},
    {"replica_ended", replica_ended},
    {"replica_state", replica_state},
    {"well", well},
    {"scale_waits", rs_tell_scale_waits},
    {"scale_at_most", rs_tell_scale_at_most},
    {"scale_at_least", rs_tell_scale_at_least},
    {"scale_stable", rs_tell_scale_stable},
    {"policy_fails", rs_tell_policy_fails},
    {"http_refused", rs_tell_http_refused},
    {"calls_refused", rs_tell_calls_refused},
    {"router_fails", rs_tell_router_fails},
};

void rs_why_text(json_t *reason)
{
    struct rs_telling t = {.r = reason, .lines = json_array()};
    const char *cause = rs_json_str(reason, "cause", "");

    for (size_t i = 0; i < RS_COUNT(table); i++)
        if (strcmp(table[i].cause, cause) == 0)
            table[i].fn(&t);
    if (!json_array_size(t.lines)) /* of a newer head */
        rs_tell(&t, "%s", cause);
    json_object_set_new(reason, "text", t.lines);
    if (rs_buf_len(&t.next))
        json_object_set_new(reason, "next", json_string(rs_buf_text(&t.next)));
    rs_buf_fini(&t.next);
}
