/* The table of `rserve status`: applications, deployments, replicas, and why something is not well. */
#include "cmd/status.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/nearest.h"
#include "core/base/text.h"
#include "core/config/emit.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    NAME_MIN = 22,
    NAME_MAX = 48,
    REASON_LINES = 30, /* of one message */
    MARGIN = 2,
};

/* The columns after the name: right-aligned but for the state. */
static const struct column {
    const char *title;
    int width; /* negative: left-aligned */
} columns[] = {
    {"STATE", -13}, {"REPLICAS", 8}, {"PID", 7}, {"UPTIME", 7}, {"IN FLIGHT", 9}, {"QUEUED", 6},
};

enum { STATE, REPLICAS, PID, UPTIME, IN_FLIGHT, QUEUED, COLUMNS };
_Static_assert(RS_COUNT(columns) == COLUMNS, "a title per column");

struct row {
    const char *name;
    size_t indent;
    char cells[COLUMNS][24];
};

struct table {
    const struct rs_status_style *style;
    struct rs_buf *out;
    size_t name_width;
};

/* --- pieces ---------------------------------------------------------------------------------------- */

static const char *color_of(const char *state)
{
    static const struct {
        const char *state, *color;
    } colors[] = {
        {"RUNNING", "\x1b[32m"},           {"HEALTHY", "\x1b[32m"},     {"UNHEALTHY", "\x1b[31m"},
        {"DEPLOY_FAILED", "\x1b[31m"},     {"DEPLOYING", "\x1b[33m"},   {"UPDATING", "\x1b[33m"},
        {"UPSCALING", "\x1b[33m"},         {"DOWNSCALING", "\x1b[33m"}, {"STARTING", "\x1b[33m"},
        {"STOPPING", "\x1b[33m"},          {"RECOVERING", "\x1b[33m"},  {"DELETING", "\x1b[33m"},
        {"PENDING_MIGRATION", "\x1b[33m"},
    };

    for (size_t i = 0; i < RS_COUNT(colors); i++)
        if (strcmp(colors[i].state, state) == 0)
            return colors[i].color;
    return NULL;
}

static bool is_well(const char *state)
{
    return strcmp(state, "RUNNING") == 0 || strcmp(state, "HEALTHY") == 0;
}

/* "12s", "5m 12s", "3h 5m", "12d 3h". */
static void put_age(char *out, size_t size, double seconds)
{
    long long s = seconds > 0 && seconds < 1e12 ? (long long)seconds : 0;

    if (s < 60)
        snprintf(out, size, "%llds", s);
    else if (s < 3600)
        snprintf(out, size, "%lldm %llds", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, size, "%lldh %lldm", s / 3600, s / 60 % 60);
    else
        snprintf(out, size, "%lldd %lldh", s / 86400, s / 3600 % 24);
}

void rs_status_age_short(char *out, size_t size, double seconds)
{
    long long s = seconds > 0 && seconds < 1e12 ? (long long)seconds : 0;

    if (s < 120)
        snprintf(out, size, "%llds", s);
    else if (s < 7200)
        snprintf(out, size, "%lldm", s / 60);
    else if (s < 172800)
        snprintf(out, size, "%lldh", s / 3600);
    else
        snprintf(out, size, "%lldd", s / 86400);
}

static void put_row(const struct table *t, const struct row *r)
{
    struct rs_buf *out = t->out;

    rs_buf_printf(out, "%*s", (int)r->indent, "");
    rs_text_pad(out, r->name, t->name_width - r->indent);
    for (size_t i = 0; i < COLUMNS; i++) {
        const char *color = i == STATE && t->style->color ? color_of(r->cells[i]) : NULL;

        rs_buf_printf(out, " %s%*s%s", color ? color : "", columns[i].width, r->cells[i],
                      color ? "\x1b[0m" : "");
    }
    while (rs_buf_text(out)[rs_buf_len(out) - 1] == ' ')
        out->end--;
    rs_buf_puts(out, "\n");
}

static void put_titles(const struct table *t)
{
    struct row r = {.name = "NAME"};

    for (size_t i = 0; i < COLUMNS; i++)
        snprintf(r.cells[i], sizeof(r.cells[i]), "%s", columns[i].title);
    put_row(t, &r);
}

/* Escape sequences that a traceback may bring along. */
static void strip_ansi(struct rs_buf *out, const char *text)
{
    while (*text) {
        if (text[0] == '\x1b' && text[1] == '[') {
            text += 2;
            while (*text && !(*text >= '@' && *text <= '~'))
                text++;
            text += *text != '\0';
        } else {
            rs_buf_append(out, text++, 1);
        }
    }
}

static size_t count_lines(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

/* Why something is not well, below its row. Of a long message the end says most: the exception. */
static void put_reason(const struct table *t, const char *message, size_t indent)
{
    struct rs_buf clean = {0}, lines = {0};
    const char *from;
    size_t n, skip;

    strip_ansi(&clean, message);
    rs_text_wrap(&lines, rs_buf_text(&clean), indent, t->style->width);
    from = rs_buf_text(&lines);
    n = count_lines(from);
    skip = n > REASON_LINES ? n - REASON_LINES : 0;
    if (skip) { /* the first line stays */
        const char *first = strchr(from, '\n') + 1;

        rs_buf_append(t->out, from, (size_t)(first - from));
        rs_buf_printf(t->out, "%*s... %zu more lines: rserve status --yaml\n", (int)indent, "",
                      skip);
        for (from = first; skip > 0; skip--)
            from = strchr(from, '\n') + 1;
    }
    rs_buf_puts(t->out, from);
    rs_buf_fini(&clean);
    rs_buf_fini(&lines);
}

/* --- rows ------------------------------------------------------------------------------------------ */

/* A dash for what is not known: below 0. */
static void put_number(char cell[24], int64_t n)
{
    if (n >= 0)
        snprintf(cell, 24, "%lld", (long long)n);
    else
        snprintf(cell, 24, "-");
}

/* The extra member of a replica or deployment; -1: it has none. */
static int64_t extra(const json_t *of, const char *key)
{
    return rs_json_int(json_object_get(of, "rserve"), key, -1);
}

static const json_t *extras(const json_t *of)
{
    return json_object_get(of, "rserve");
}

static void put_replica(const struct table *t, const json_t *replica)
{
    struct row r = {.name = rs_json_str(replica, "replica_id", "?"), .indent = 4};
    int64_t pid = rs_json_int(replica, "pid", 0);
    double start = rs_json_num(replica, "start_time_s", 0);
    const char *state = rs_json_str(replica, "state", "?"), *message;

    state = rs_json_str(extras(replica), "state", state); /* ours knows more of them */
    message = rs_json_str(extras(replica), "message", "");
    snprintf(r.cells[STATE], sizeof(r.cells[STATE]), "%s", state);
    put_number(r.cells[PID], pid > 0 ? pid : -1);
    if (start > 0 && pid > 0)
        put_age(r.cells[UPTIME], sizeof(r.cells[UPTIME]), t->style->now - start);
    put_number(r.cells[IN_FLIGHT], extra(replica, "in_flight"));
    put_row(t, &r);
    if (message[0])
        put_reason(t, message, 6);
}

/* What is to be known about a deployment beside its message, unless that says it already. */
static void put_remarks(const struct table *t, const json_t *d, const char *message)
{
    static const char *const keys[] = {"blocked", "last_error", "notice", "autoscaling", "router"};
    bool well = is_well(rs_json_str(d, "status", ""));

    for (size_t i = 0; i < RS_COUNT(keys); i++) {
        const char *text = rs_json_str(extras(d), keys[i], "");
        bool old = well && strcmp(keys[i], "last_error") == 0;

        if (text[0] && !old && !strstr(message, text))
            put_reason(t, text, 4);
    }
}

static void put_deployment(const struct table *t, const char *name, const json_t *d)
{
    struct row r = {.name = name, .indent = 2};
    const json_t *replicas = json_object_get(d, "replicas"), *replica;
    const char *state = rs_json_str(d, "status", "?"), *message = rs_json_str(d, "message", "");
    int64_t running = 0, in_flight = -1, all = extra(d, "in_flight");
    size_t i;

    json_array_foreach (replicas, i, replica) {
        int64_t n = extra(replica, "in_flight");

        running += strcmp(rs_json_str(replica, "state", ""), "RUNNING") == 0;
        if (n >= 0)
            in_flight = (in_flight < 0 ? 0 : in_flight) + n;
    }
    snprintf(r.cells[STATE], sizeof(r.cells[STATE]), "%s", state);
    snprintf(r.cells[REPLICAS], sizeof(r.cells[REPLICAS]), "%lld/%lld", (long long)running,
             (long long)rs_json_int(d, "target_num_replicas", (int64_t)json_array_size(replicas)));
    put_number(r.cells[IN_FLIGHT], all >= 0 ? all : in_flight);
    put_number(r.cells[QUEUED], extra(d, "queued"));
    put_row(t, &r);
    if (!is_well(state) && message[0])
        put_reason(t, message, 4);
    put_remarks(t, d, is_well(state) ? "" : message);
    json_array_foreach (replicas, i, replica)
        put_replica(t, replica);
}

/* How the replicas come to be, where that is worth a line. */
static void put_start(const struct table *t, const json_t *extra, bool explained)
{
    const char *reason = rs_json_str(extra, "start_reason", "");
    rs_auto(rs_freep) char *text = NULL;

    if (rs_json_bool(extra, "building", false) && !explained)
        rs_buf_puts(t->out, "  the application is being imported\n");
    if (strcmp(rs_json_str(extra, "start", ""), "spawn") != 0 || !reason[0])
        return;
    text = rs_asprintf("replicas start as fresh interpreters: %s", reason);
    put_reason(t, text, 2);
}

/* Requests that got an answer of the ingress instead of the application's. */
static void put_refused(const struct table *t, json_t *refused)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    const char *cause;
    json_t *n;

    json_object_foreach (refused, cause, n)
        rs_buf_printf(&text, "%s %lld %s", rs_buf_len(&text) ? "," : "",
                      (long long)json_integer_value(n), cause);
    if (!rs_buf_len(&text))
        return;
    rs_buf_puts(t->out, "  refused by the head's node:");
    rs_text_fit(t->out, rs_buf_text(&text), t->style->width - 29);
    rs_buf_puts(t->out, "\n");
}

static void put_application(const struct table *t, const char *name, const json_t *app)
{
    struct row r = {.name = name};
    const char *state = rs_json_str(app, "status", "?"), *message = rs_json_str(app, "message", ""),
               *prefix = rs_json_str(app, "route_prefix", NULL), *key;
    double since = rs_json_num(app, "last_deployed_time_s", 0);
    json_t *d;

    snprintf(r.cells[STATE], sizeof(r.cells[STATE]), "%s", state);
    if (since > 0)
        put_age(r.cells[UPTIME], sizeof(r.cells[UPTIME]), t->style->now - since);
    put_row(t, &r);
    if (prefix) {
        rs_buf_puts(t->out, "  route ");
        rs_text_fit(t->out, prefix, t->style->width - 8);
        rs_buf_puts(t->out, "\n");
    }
    if (!is_well(state) && message[0])
        put_reason(t, message, 2);
    put_start(t, extras(app), !is_well(state) && message[0]);
    put_refused(t, json_object_get(extras(app), "refused"));
    json_object_foreach (json_object_get(app, "deployments"), key, d)
        put_deployment(t, key, d);
}

/* --- the whole ------------------------------------------------------------------------------------- */

static void widen(size_t *width, const char *name, size_t indent)
{
    size_t need = indent + rs_text_width(name, strlen(name));

    *width = need > *width ? need : *width;
}

/* As wide as the longest name wants, as far as the other columns leave room. */
static size_t name_width(json_t *applications, size_t width)
{
    size_t want = NAME_MIN, room = width, i;
    const char *name, *deployment;
    json_t *app, *d, *replica;

    for (size_t c = 0; c < COLUMNS; c++) {
        size_t used = (size_t)(columns[c].width < 0 ? -columns[c].width : columns[c].width) + 1;

        room = room > used + NAME_MIN ? room - used : NAME_MIN;
    }
    json_object_foreach (applications, name, app) {
        widen(&want, name, 0);
        json_object_foreach (json_object_get(app, "deployments"), deployment, d) {
            widen(&want, deployment, 2);
            json_array_foreach (json_object_get(d, "replicas"), i, replica)
                widen(&want, rs_json_str(replica, "replica_id", "?"), 4);
        }
    }
    want = want > NAME_MAX ? NAME_MAX : want;
    return want > room ? room : want;
}

static void put_ill(const struct table *t, size_t ill)
{
    const char *app = t->style->app;
    rs_auto(rs_freep) char *hint =
        rs_asprintf("why, and what to do: rserve status --why%s%s", app ? " " : "", app ? app : "");

    rs_buf_printf(t->out, "%zu not running\n", ill);
    rs_text_fit(t->out, hint, t->style->width);
    rs_buf_puts(t->out, "\n");
}

static void put_summary(const struct table *t, const json_t *details, json_t *applications)
{
    size_t nodes = json_object_size(json_object_get(extras(details), "nodes"));
    size_t n = json_object_size(applications), ill = 0;
    const char *name;
    json_t *app;

    json_object_foreach (applications, name, app)
        ill += !is_well(rs_json_str(app, "status", ""));
    rs_buf_printf(t->out, "%s  ", t->style->address);
    if (nodes > 1)
        rs_buf_printf(t->out, "%zu nodes, ", nodes);
    if (n == 0)
        rs_buf_puts(t->out, "no applications are deployed\n");
    else
        rs_buf_printf(t->out, "%zu application%s, ", n, n == 1 ? "" : "s");
    if (n > 0 && ill == 0)
        rs_buf_printf(t->out, "%s\n", n == 1 ? "running" : "all running");
    else if (n > 0)
        put_ill(t, ill);
}

/* Proxies are of interest only when they are not well. */
static void put_proxies(const struct table *t, json_t *proxies)
{
    const char *node;
    json_t *proxy;

    json_object_foreach (proxies, node, proxy) {
        const char *state = rs_json_str(proxy, "status", "?");

        if (is_well(state))
            continue;
        rs_buf_puts(t->out, "HTTP proxy of node ");
        rs_text_fit(t->out, node, t->style->width > 40 ? t->style->width - 40 : 8);
        rs_buf_printf(t->out, ": %.20s\n", state);
    }
}

/* Fills `err` with "no application ..., did you mean ...". */
static int no_such(json_t *applications, const char *name, struct rs_error *err)
{
    struct rs_nearest near = rs_nearest_to(name);
    const char *key;
    json_t *app;

    json_object_foreach (applications, key, app)
        rs_nearest_offer(&near, key);
    if (near.best)
        return rs_error_set(err, RS_NOT_FOUND,
                            "application \"%.100s\" does not exist; did you mean \"%.100s\"?", name,
                            near.best);
    return rs_error_set(err, RS_NOT_FOUND, "application \"%.100s\" does not exist", name);
}

int rs_status_table(const json_t *details, const struct rs_status_style *style, struct rs_buf *out,
                    struct rs_error *err)
{
    json_t *applications = json_object_get(details, "applications"), *app;
    struct table t = {.style = style, .out = out};
    const char *name;

    if (style->app && !json_object_get(applications, style->app))
        return no_such(applications, style->app, err);
    t.name_width = name_width(applications, style->width);
    put_summary(&t, details, applications);
    put_proxies(&t, json_object_get(details, "proxies"));
    if (json_object_size(applications) == 0)
        return 0;
    rs_buf_puts(out, "\n");
    put_titles(&t);
    json_object_foreach (applications, name, app)
        if (!style->app || strcmp(style->app, name) == 0)
            put_application(&t, name, app);
    return 0;
}

/* --- the document of `serve status` ---------------------------------------------------------------- */

/* Without escape sequences, and without blanks at the ends of lines: those would force quotes. */
static json_t *message_of(const json_t *of)
{
    struct rs_buf clean = {0}, lines = {0};
    json_t *text;

    strip_ansi(&clean, rs_json_str(of, "message", ""));
    for (const char *p = rs_buf_text(&clean); *p;) {
        size_t n = strcspn(p, "\n"), keep = n;

        while (keep > 0 && (p[keep - 1] == ' ' || p[keep - 1] == '\t' || p[keep - 1] == '\r'))
            keep--;
        rs_buf_append(&lines, p, keep);
        if (p[n])
            rs_buf_puts(&lines, "\n");
        p += n + (p[n] == '\n');
    }
    text = json_string(rs_buf_text(&lines));
    rs_buf_fini(&clean);
    rs_buf_fini(&lines);
    return text;
}

static json_t *states_of(const json_t *replicas)
{
    json_t *states = json_object();
    const json_t *replica;
    size_t i;

    json_array_foreach (replicas, i, replica) {
        const char *state = rs_json_str(replica, "state", "?");

        json_object_set_new(states, state, json_integer(rs_json_int(states, state, 0) + 1));
    }
    return states;
}

static json_t *member(const json_t *of, const char *key)
{
    json_t *value = json_object_get(of, key);

    return value ? json_incref(value) : json_null();
}

static json_t *application_status(const json_t *app)
{
    json_t *deployments = json_object();
    const char *name;
    json_t *d;

    json_object_foreach (json_object_get(app, "deployments"), name, d)
        json_object_set_new(deployments, name,
                            json_pack("{s:o,s:o,s:o,s:o}", "status", member(d, "status"),
                                      "status_trigger", member(d, "status_trigger"),
                                      "replica_states", states_of(json_object_get(d, "replicas")),
                                      "message", message_of(d)));
    return json_pack("{s:o,s:o,s:o,s:o}", "status", member(app, "status"), "message",
                     message_of(app), "last_deployed_time_s", member(app, "last_deployed_time_s"),
                     "deployments", deployments);
}

int rs_status_yaml(const json_t *details, const char *app, struct rs_buf *out, struct rs_error *err)
{
    json_t *applications = json_object_get(details, "applications"), *of;
    rs_auto(rs_json_decrefp) json_t *doc = NULL;
    json_t *proxies, *all;
    const char *name;

    if (app && !json_object_get(applications, app))
        return no_such(applications, app, err);
    if (app) {
        doc = application_status(json_object_get(applications, app));
        rs_yaml_dump(out, doc);
        return 0;
    }
    proxies = json_object();
    all = json_object();
    json_object_foreach (json_object_get(details, "proxies"), name, of)
        json_object_set_new(proxies, name, member(of, "status"));
    json_object_foreach (applications, name, of)
        json_object_set_new(all, name, application_status(of));
    doc = json_pack("{s:o,s:o,s:o}", "proxies", proxies, "applications", all, "target_capacity",
                    member(details, "target_capacity"));
    rs_yaml_dump(out, doc);
    return 0;
}
