/* rserve status: asks the REST API of a running rserve and prints what it says. */
#include "cmd/status.h"

#include "cmd/refused.h"
#include "cmd/remote.h"
#include "cmd/status-events.h"
#include "cmd/status-why.h"
#include "cmd/terminal.h"
#include "cmd/verb.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct status_options {
    const char *address, *name;
    bool json, yaml, watch, events, follow, why;
    int64_t interval;
};

#define AT(field) offsetof(struct status_options, field)
static const struct rs_option status_options[] = {
    {"address", 'a', RS_OPT_STRING, AT(address), "URL",
     "where rserve's REST API is (default $RSERVE_ADDRESS, $RAY_DASHBOARD_ADDRESS, $RAY_ADDRESS, "
     "the newest head of this machine, http://127.0.0.1:8265)"},
    {"name", 'n', RS_OPT_STRING, AT(name), "APP", "only this application, as the argument APP"},
    {"json", 0, RS_OPT_FLAG, AT(json), NULL, "the details as the REST API gives them"},
    {"yaml", 0, RS_OPT_FLAG, AT(yaml), NULL, "a summary in YAML, in the shape of 'serve status'"},
    {"watch", 'w', RS_OPT_FLAG, AT(watch), NULL, "again and again, until Ctrl-C"},
    {"why", 0, RS_OPT_FLAG, AT(why), NULL,
     "why it waits, fails, scales or does not, refuses requests; and what to do"},
    {"events", 'e', RS_OPT_FLAG, AT(events), NULL, "what happened, the newest last"},
    {"follow", 'f', RS_OPT_FLAG, AT(follow), NULL, "with --events: what happens from now on, too"},
    {"interval", 0, RS_OPT_DURATION, AT(interval), "TIME",
     "time between two looks of --watch (default 2s)", .min = 100 * RS_MS, .max = 86400 * RS_SEC},
    {NULL},
};

/* Figures that the details do not have; without them the rest is shown. */
static void add_refused(const struct rs_remote *remote, json_t *details)
{
    struct rs_http_answer answer = {0};
    struct rs_error err = {0};

    if (rs_remote_call(remote, "GET", "/metrics", NULL, &answer, &err) == 0 && answer.status == 200)
        rs_refused_add(details, rs_buf_text(&answer.body));
    rs_http_answer_fini(&answer);
}

static void add_query(struct rs_buf *path, const char *key, const char *value)
{
    if (!value)
        return;
    rs_buf_printf(path, "%c%s=", strchr(rs_buf_text(path), '?') ? '&' : '?', key);
    rs_remote_encode(path, value);
}

static int why(const struct status_options *o, const struct rs_terminal *terminal,
               struct rs_buf *out, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *answer = NULL;
    rs_auto(rs_buf_fini) struct rs_buf path = {0};
    rs_auto(rs_freep) char *text = NULL;
    const struct rs_why_style style = {.width = terminal->width, .color = terminal->color};
    struct rs_status_subject of;
    struct rs_remote remote;

    if (rs_remote_find(&remote, o->address, err) < 0)
        return -1;
    rs_status_subject_parse(&of, o->name);
    rs_buf_puts(&path, "/api/v1/why");
    add_query(&path, "app", of.app);
    add_query(&path, "deployment", of.deployment);
    add_query(&path, "replica", of.replica);
    rs_status_subject_fini(&of);
    if (rs_remote_get(&remote, rs_buf_text(&path), "the question", &answer, err) < 0)
        return -1;
    if (!o->json) {
        rs_status_why(answer, &style, out);
        return 0;
    }
    text = rs_json_dump(answer);
    rs_buf_printf(out, "%s\n", text);
    return 0;
}

/* One look. What there is to print goes to `out`. */
static int look(const struct status_options *o, const struct rs_terminal *terminal,
                struct rs_buf *out, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *details = NULL;
    rs_auto(rs_freep) char *text = NULL;
    rs_auto(rs_status_subject_fini) struct rs_status_subject of = {0};
    struct rs_status_style style = {
        .width = terminal->width, .color = terminal->color, .now = rs_clock_wall()};
    struct rs_remote remote;

    if (o->why)
        return why(o, terminal, out, err);
    if (rs_remote_find(&remote, o->address, err) < 0 ||
        rs_remote_details(&remote, &details, err) < 0)
        return -1;
    rs_status_subject_parse(&of, o->name);
    style.app = of.app;
    style.address = remote.base;
    if (!o->yaml)
        add_refused(&remote, details);
    if (o->yaml)
        return rs_status_yaml(details, of.app, out, err);
    if (!o->json)
        return rs_status_table(details, &style, out, err);
    text = rs_json_dump(details);
    rs_buf_printf(out, "%s\n", text);
    return 0;
}

/* Shows each look in the place of the one before; a look that fails is shown too. */
static int watch(const struct status_options *o, const struct rs_terminal *terminal)
{
    struct timespec pause = {o->interval / RS_SEC, (long)(o->interval % RS_SEC)};

    for (;;) {
        rs_auto(rs_buf_fini) struct rs_buf out = {0};
        struct rs_error err = {0};

        if (look(o, terminal, &out, &err) < 0) {
            if (err.code == RS_INVALID)
                fprintf(stderr, "rserve status: %s\n", err.msg);
            if (err.code == RS_INVALID)
                return RS_EXIT_USAGE;
            rs_buf_clear(&out);
            rs_buf_printf(&out, "rserve status: %s\n", err.msg);
        }
        if (terminal->tty)
            fputs("\x1b[H\x1b[J", stdout); /* home, erase what is below */
        fwrite(rs_buf_text(&out), 1, rs_buf_len(&out), stdout);
        if (fflush(stdout) != 0)
            return RS_EXIT_FAILED; /* nobody reads any more */
        nanosleep(&pause, NULL);
    }
}

static int run_events(const struct status_options *o, struct rs_error *err)
{
    struct rs_terminal terminal = rs_terminal_of(STDOUT_FILENO);
    struct rs_status_subject of;
    const struct rs_events_show show = {
        .of = &of, .width = terminal.width, .json = o->json, .follow = o->follow};
    struct rs_remote remote;
    int r;

    if (rs_remote_find(&remote, o->address, err) < 0)
        return -1;
    rs_status_subject_parse(&of, o->name);
    r = rs_status_events(&remote, &show, err);
    rs_status_subject_fini(&of);
    return r;
}

static int run_status(int argc, char *argv[], struct rs_error *err)
{
    struct status_options o = {.interval = 2 * RS_SEC};
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    int n = rs_verb_parse(&rs_verb_status, argc, argv, &o, err);
    struct rs_terminal terminal;

    if (n < 0)
        return -1;
    if (o.json && o.yaml)
        return rs_error_set(err, RS_INVALID, "--json and --yaml exclude each other");
    if (n == 1)
        o.name = argv[1];
    if (o.follow && !o.events)
        return rs_error_set(err, RS_INVALID, "--follow goes with --events (see also --watch)");
    if (o.why && (o.yaml || o.events))
        return rs_error_set(err, RS_INVALID, "--why goes with neither --yaml nor --events");
    if (o.events && (o.yaml || o.watch))
        return rs_error_set(err, RS_INVALID, "--events goes with neither --yaml nor --watch");
    if (o.events)
        return run_events(&o, err);
    terminal = rs_terminal_of(STDOUT_FILENO);
    if (o.watch)
        return watch(&o, &terminal);
    if (look(&o, &terminal, &out, err) < 0)
        return -1;
    fwrite(rs_buf_text(&out), 1, rs_buf_len(&out), stdout);
    return 0;
}

const struct rs_verb rs_verb_status = {
    .name = "status",
    .args = "[APP[#DEPLOYMENT[#REPLICA]]]",
    .summary = "show applications, deployments and replicas",
    .details = "Asks a running rserve. With --why: for each thing that is not as it was asked for "
               "the reason, "
               "with figures, and what to do. With --events: who did what, and what followed; -f "
               "goes on. Exit status: 0 if it answered, whatever it said; 1 if nothing "
               "answers or there is no such application.",
    .max_args = 1,
    .options = status_options,
    .run = run_status,
};
