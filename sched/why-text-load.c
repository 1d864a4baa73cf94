/* Scaling and refused requests, in words. */
#include "sched/why-text-internal.h"

#include "core/base/error.h"

#include <string.h>

/* --- scaling ------------------------------------------------------------------------------------- */

/* "8.00 ongoing requests on average in the last 30 s / 2 for each replica = 4.00" */
static void formula(struct rs_telling *t)
{
    const char *basis = rs_tell_str(t, "basis");
    double factor = rs_tell_real(t, "desired") >= (double)rs_tell_int(t, "running")
                        ? rs_tell_real(t, "upscaling_factor")
                        : rs_tell_real(t, "downscaling_factor");

    if (strcmp(basis, "policy") == 0)
        rs_tell(t, "the policy %s asks for %g", rs_tell_str(t, "policy"),
                rs_tell_real(t, "desired"));
    else if (strcmp(basis, "load") == 0)
        rs_tell(t,
                "%.2f ongoing requests over the last %g s / %g for each replica = %.2f replicas%s",
                rs_tell_real(t, "requests"), rs_tell_real(t, "window_s"),
                rs_tell_real(t, "target_ongoing_requests"), rs_tell_real(t, "desired"),
                factor != 1 ? "" : ", rounded up");
    else
        rs_tell(t, "%.2f ongoing requests over the last %g s, on %lld replica%s",
                rs_tell_real(t, "requests"), rs_tell_real(t, "window_s"),
                (long long)rs_tell_int(t, "running"), rs_tell_s(rs_tell_int(t, "running")));
    if (factor != 1 && strcmp(basis, "load") == 0)
        rs_tell(t, "by its factor of %g that makes %g of now %lld", factor,
                rs_tell_real(t, "proposed"), (long long)rs_tell_int(t, "running"));
    if (json_object_get(t->r, "lower_by"))
        rs_tell(t, "at least %lld: %s", (long long)rs_tell_int(t, "lower"),
                rs_tell_str(t, "lower_by"));
    if (json_object_get(t->r, "schedule_error"))
        rs_tell(t, "its schedule is not followed: %s", rs_tell_str(t, "schedule_error"));
}

void rs_tell_scale_waits(struct rs_telling *t)
{
    bool up = rs_tell_int(t, "to") > rs_tell_int(t, "from");

    rs_tell(t, "Goes %s from %lld to %lld replicas in %.1f s, if it stays so (%s is %g).",
            up ? "up" : "down", (long long)rs_tell_int(t, "from"), (long long)rs_tell_int(t, "to"),
            rs_tell_real(t, "left_s"), rs_tell_str(t, "delay"), rs_tell_real(t, "delay_s"));
    formula(t);
    rs_tell_next(t, "Nothing, or a smaller %s in autoscaling_config.", rs_tell_str(t, "delay"));
}

void rs_tell_scale_at_most(struct rs_telling *t)
{
    rs_tell(t, "Stays at %lld replica%s, the most that it may have: its load asks for %g.",
            (long long)rs_tell_int(t, "from"), rs_tell_s(rs_tell_int(t, "from")),
            rs_tell_real(t, "proposed"));
    formula(t);
    rs_tell_next(t,
                 "Raise max_replicas above %lld in autoscaling_config if there is room for more.",
                 (long long)rs_tell_int(t, "upper"));
}

void rs_tell_scale_at_least(struct rs_telling *t)
{
    rs_tell(t, "Stays at %lld replica%s, the least that it may have: its load asks for %g.",
            (long long)rs_tell_int(t, "from"), rs_tell_s(rs_tell_int(t, "from")),
            rs_tell_real(t, "proposed"));
    formula(t);
    rs_tell_next(t, "%s",
                 json_object_get(t->r, "lower_by")
                     ? "Nothing: that is what rserve.autoscaling asks for at this time."
                     : "Lower min_replicas in autoscaling_config to save some.");
}

void rs_tell_scale_stable(struct rs_telling *t)
{
    rs_tell(t, "Stays at %lld replica%s (%lld to %lld): that is what its load asks for.",
            (long long)rs_tell_int(t, "from"), rs_tell_s(rs_tell_int(t, "from")),
            (long long)rs_tell_int(t, "lower"), (long long)rs_tell_int(t, "upper"));
    formula(t);
}

void rs_tell_policy_fails(struct rs_telling *t)
{
    rs_tell(t, "Its autoscaling policy %s does not work: %s", rs_tell_str(t, "policy"),
            rs_tell_last_line(t, "error"));
    rs_tell_quote_more(t, "error");
    if (rs_json_bool(t->r, "built_in_decides", false))
        rs_tell(t, "The built-in policy decides meanwhile.");
    else
        rs_tell(t, "The number stays at %lld meanwhile.", (long long)rs_tell_int(t, "from"));
    rs_tell_next(t, "Correct the policy and deploy again; it is asked again until then.");
}

/* --- requests ------------------------------------------------------------------------------------ */

/* What a cause means, and what to do about it. */
static const struct {
    const char *cause, *text, *todo;
} causes[] = {
    {"queue_full", "503 (or 429): as many waited as max_queued_requests allows",
     "More replicas, or a higher max_queued_requests if clients can wait."},
    {"shed", "503: they had waited longer than the deployment's shedding target allows",
     "More replicas: work comes in faster than it is done."},
    {"expired", "their time was over before any replica had a slot for them",
     "More replicas, or more time (request_timeout_s)."},
    {"timeout", "408 or 504: no answer within request_timeout_s",
     "Faster or more replicas, or a longer request_timeout_s; rserve status shows what waits."},
    {"memory", "503: too much memory is held for requests and answers (--buffer-memory)",
     "Fewer or smaller requests at a time, or a larger --buffer-memory."},
    {"unavailable", "503: no replica was there that could take them",
     "See above why none runs: pending, start or health."},
    {"exception", "500: the application's code raised an exception",
     "The traceback is in its log: rserve logs."},
    {"replica_died", "its replica died before the answer",
     "See why replicas die: rserve status --events."},
    {"rate_limited", "429: more than the route's rate limit allows",
     "Raise the limit of the route if it is too low for these clients."},
    {"internal", "500: an error inside rserve", "See the log of rserve itself."},
    {"bad_request", "400: not HTTP that can be served", "The client sends what is wrong."},
    {"header_too_large", "431: the header is too large", "The client's headers are too large."},
    {"body_too_large", "413: the body is longer than --max-body or the route allows",
     "Raise the limit if such bodies are wanted."},
    {"client_gone", "499: the client had gone before the answer",
     "If they have no patience: answer faster, or raise their timeout."},
};

static void cause_line(struct rs_telling *t, const char *cause, const json_t *of)
{
    const json_t *list = json_object_get(of, "minutes"), *n;
    struct rs_buf out = {0};
    const char *text = NULL;
    size_t i;

    for (size_t k = 0; k < RS_COUNT(causes); k++)
        if (strcmp(causes[k].cause, cause) == 0)
            text = causes[k].text;
    json_array_foreach (list, i, n)
        rs_buf_printf(&out, " %lld", (long long)json_integer_value(n));
    rs_tell(t, "%lld %s%s%s", (long long)rs_json_int(of, "total", 0), cause, text ? ": " : "",
            text ? text : "");
    rs_tell(t, "  per minute, this one last:%s", rs_buf_text(&out));
    rs_buf_fini(&out);
}

/* That of the most frequent cause. */
static void causes_next(struct rs_telling *t, json_t *all)
{
    int64_t most = 0;
    const char *cause;
    json_t *of;

    json_object_foreach (all, cause, of)
        for (size_t k = 0; k < RS_COUNT(causes); k++)
            if (strcmp(causes[k].cause, cause) == 0 && rs_json_int(of, "total", 0) > most) {
                most = rs_json_int(of, "total", 0);
                rs_tell_next(t, "%s", causes[k].todo);
            }
}

static void refused(struct rs_telling *t, const char *what, const char *by)
{
    json_t *all = json_object_get(t->r, "causes"), *of;
    int64_t total = rs_tell_int(t, "total");
    const char *cause;

    rs_tell(t, "%lld %s%s in the last %lld minutes got no answer of %s.", (long long)total, what,
            rs_tell_s(total), (long long)rs_tell_int(t, "minutes"), by);
    json_object_foreach (all, cause, of)
        cause_line(t, cause, of);
    causes_next(t, all);
}

void rs_tell_http_refused(struct rs_telling *t)
{
    refused(t, "HTTP request", "the application");
}

void rs_tell_calls_refused(struct rs_telling *t)
{
    int64_t queue = rs_tell_int(t, "max_queued_requests");
    char bound[24] = "no bound";

    refused(t, "request", "a replica");
    if (queue >= 0)
        snprintf(bound, sizeof(bound), "at most %lld", (long long)queue);
    rs_tell(
        t, "now: %lld replica%s that take%s %lld at a time each; %lld under way, %lld waiting (%s)",
        (long long)rs_tell_int(t, "running"), rs_tell_s(rs_tell_int(t, "running")),
        rs_tell_int(t, "running") == 1 ? "s" : "",
        (long long)rs_tell_int(t, "max_ongoing_requests"), (long long)rs_tell_int(t, "in_flight"),
        (long long)rs_tell_int(t, "queued"), bound);
}

void rs_tell_router_fails(struct rs_telling *t)
{
    rs_tell(t,
            "Its request router does not work; the built-in choice took its place for %lld "
            "request%s.",
            (long long)rs_tell_int(t, "fallbacks"), rs_tell_s(rs_tell_int(t, "fallbacks")));
    rs_tell_quote(t, "error");
    rs_tell_next(t, "Correct the router and deploy again; requests are served meanwhile.");
}
