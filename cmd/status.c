/* rserve status: asks the REST API of a running rserve and prints what it says. */
#include "cmd/status.h"

#include "cmd/terminal.h"
#include "cmd/verb.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "net/http/client.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_ADDRESS "http://127.0.0.1:8265"

struct status_options {
    const char *address, *name;
    bool json, yaml, watch;
    int64_t interval;
};

#define AT(field) offsetof(struct status_options, field)
static const struct rs_option status_options[] = {
    {"address", 'a', RS_OPT_STRING, AT(address), "URL",
     "where rserve's REST API is (default $RSERVE_ADDRESS, $RAY_DASHBOARD_ADDRESS or "
     "http://127.0.0.1:8265)"},
    {"name", 'n', RS_OPT_STRING, AT(name), "APP", "only this application, as the argument APP"},
    {"json", 0, RS_OPT_FLAG, AT(json), NULL, "the details as the REST API gives them"},
    {"yaml", 0, RS_OPT_FLAG, AT(yaml), NULL, "a summary in YAML, in the shape of 'serve status'"},
    {"watch", 'w', RS_OPT_FLAG, AT(watch), NULL, "again and again, until Ctrl-C"},
    {"interval", 0, RS_OPT_DURATION, AT(interval), "TIME",
     "time between two looks of --watch (default 2s)", .min = 100 * RS_MS, .max = 86400 * RS_SEC},
    {NULL},
};

static const char *address_of(const struct status_options *o)
{
    const char *const candidates[] = {o->address, getenv("RSERVE_ADDRESS"),
                                      getenv("RAY_DASHBOARD_ADDRESS")};

    for (size_t i = 0; i < RS_COUNT(candidates); i++)
        if (candidates[i] && candidates[i][0])
            return candidates[i];
    return DEFAULT_ADDRESS;
}

static int ask(const char *address, struct rs_http_answer *ret, struct rs_error *err)
{
    const struct rs_http_call call = {
        .base = address, .path = "/api/serve/applications/?extended=1", .timeout = 10 * RS_SEC};

    if (rs_http_call(&call, ret, err) < 0) {
        if (err->code == RS_NOT_FOUND)
            return rs_error_set(err, RS_NOT_FOUND,
                                "nothing answers on %.200s (is rserve running? start it with: "
                                "rserve run app.yaml)",
                                address);
        return -1;
    }
    if (ret->status == 200)
        return 0;
    rs_error_set(err, RS_SYSTEM, "%.200s answered %d instead of 200: %.200s", address, ret->status,
                 rs_buf_text(&ret->body));
    err->msg[strcspn(err->msg, "\r\n")] = '\0';
    rs_http_answer_fini(ret);
    return -1;
}

/* One look. What there is to print goes to `out`. */
static int look(const struct status_options *o, const struct rs_terminal *terminal,
                struct rs_buf *out, struct rs_error *err)
{
    const struct rs_status_style style = {.address = address_of(o),
                                          .app = o->name,
                                          .width = terminal->width,
                                          .color = terminal->color,
                                          .now = rs_clock_wall()};
    rs_auto(rs_http_answer_fini) struct rs_http_answer answer = {0};
    rs_auto(rs_json_decrefp) json_t *details = NULL;

    if (ask(style.address, &answer, err) < 0 ||
        rs_json_parse(&details, rs_buf_text(&answer.body), rs_buf_len(&answer.body), style.address,
                      err) < 0) {
        if (err->code == RS_INVALID && answer.status) /* not the user's doing: exit status 1 */
            err->code = RS_SYSTEM;
        return -1;
    }
    if (o->yaml)
        return rs_status_yaml(details, o->name, out, err);
    if (!o->json)
        return rs_status_table(details, &style, out, err);
    rs_buf_append(out, rs_buf_head(&answer.body), rs_buf_len(&answer.body));
    rs_buf_puts(out, "\n");
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
    .args = "[APP]",
    .summary = "show applications, deployments and replicas",
    .details =
        "Asks a running rserve. Exit status: 0 if it answered, whatever it said; 1 if nothing "
        "answers or there is no such application.",
    .max_args = 1,
    .options = status_options,
    .run = run_status,
};
