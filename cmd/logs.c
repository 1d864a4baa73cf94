/* rserve logs: what replicas printed, on all nodes, asked of the REST API of a running rserve. */
#include "cmd/remote.h"
#include "cmd/terminal.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_S = 20, PAUSE_MS = 500, LINES_DEFAULT = 100, LINES_MAX = 100000 };

struct logs_options {
    const char *address;
    bool follow, previous, timestamps, no_prefix;
    int64_t lines, since; /* since: ns; 0: all */
};

#define AT(field) offsetof(struct logs_options, field)
static const struct rs_option logs_options[] = {
    {"address", 'a', RS_OPT_STRING, AT(address), "URL",
     "where the REST API is (default $RSERVE_ADDRESS, what runs on this machine, "
     "http://127.0.0.1:8265)"},
    {"follow", 'f', RS_OPT_FLAG, AT(follow), NULL, "go on with what they print, until Ctrl-C"},
    {"lines", 'n', RS_OPT_INT, AT(lines), "LINES", "so many of the last lines (default 100)",
     .min = 0, .max = LINES_MAX},
    {"since", 0, RS_OPT_DURATION, AT(since), "TIME", "only lines of the last so much time, as 10m",
     .min = RS_MS, .max = 366 * 86400 * RS_SEC},
    {"previous", 'p', RS_OPT_FLAG, AT(previous), NULL, "only of replicas that have ended"},
    {"timestamps", 't', RS_OPT_FLAG, AT(timestamps), NULL, "the time before each line"},
    {"no-prefix", 0, RS_OPT_FLAG, AT(no_prefix), NULL, "lines alone, without who printed them"},
    {NULL},
};

struct follow {
    const struct logs_options *o;
    const char *target;
    struct rs_remote remote;
    bool color;
    char *cursor; /* NULL: the first question */
    bool away;    /* was said */
};

/* --- lines --------------------------------------------------------------------------------------- */

/* As `run` shows it; the same process has the same colour there. */
static void put_prefix(struct rs_buf *out, const char *label, bool color)
{
    static const char *const colours[] = {"36", "33", "35", "34", "32", "31"};
    unsigned hue = 0;

    for (const char *p = label; *p; p++)
        hue = hue * 31 + (unsigned char)*p;
    if (color)
        rs_buf_printf(out, "\x1b[%sm(%s)\x1b[0m ", colours[hue % RS_COUNT(colours)], label);
    else
        rs_buf_printf(out, "(%s) ", label);
}

static void put_time(struct rs_buf *out, double wall)
{
    time_t s = (time_t)wall;
    char text[40] = "";
    struct tm tm;

    if (localtime_r(&s, &tm))
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
    rs_buf_printf(out, "%s,%03d ", text, (int)((wall - (double)s) * 1000));
}

static void put_line(struct rs_buf *out, const struct follow *f, const json_t *line)
{
    const char *deployment = rs_json_str(line, "deployment", NULL);
    const char *replica = rs_json_str(line, "replica", NULL);
    const json_t *text = json_object_get(line, "text");
    rs_auto(rs_freep) char *label =
        rs_asprintf("%s%s%s%s%s", rs_json_str(line, "app", ""), deployment ? "#" : "",
                    deployment ? deployment : "", replica ? "#" : "", replica ? replica : "");

    if (f->o->timestamps)
        put_time(out, rs_json_num(line, "time_s", 0));
    if (!f->o->no_prefix)
        put_prefix(out, label, f->color);
    if (strcmp(rs_json_str(line, "stream", ""), "rserve") == 0)
        rs_buf_puts(out, "-- ");
    if (json_is_string(text))
        rs_buf_append(out, json_string_value(text), json_string_length(text));
    rs_buf_append(out, "\n", 1);
}

/* False: nobody reads any more. */
static bool show(const struct follow *f, const json_t *page)
{
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    const json_t *line, *node;
    size_t i;

    if (rs_json_bool(page, "lost", false))
        fprintf(stderr, "rserve logs: some lines came too fast and are not shown; the files of the "
                        "replicas have them\n");
    json_array_foreach (json_object_get(page, "silent"), i, node)
        fprintf(stderr, "rserve logs: node %s does not answer\n", json_string_value(node));
    json_array_foreach (json_object_get(page, "lines"), i, line)
        put_line(&out, f, line);
    fwrite(rs_buf_text(&out), 1, rs_buf_len(&out), stdout);
    return fflush(stdout) == 0;
}

/* --- questions ----------------------------------------------------------------------------------- */

static void path_of(const struct follow *f, struct rs_buf *out)
{
    rs_buf_puts(out, "/api/v1/logs?target=");
    rs_remote_encode(out, f->target);
    rs_buf_printf(out, "&previous=%d&lines=%lld", f->o->previous, (long long)f->o->lines);
    if (f->cursor)
        rs_buf_printf(out, "&wait_s=%d&cursor=%s", WAIT_S, f->cursor);
    else if (f->o->since)
        rs_buf_printf(out, "&since_s=%.3f", (double)f->o->since / 1e9);
}

static int ask(struct follow *f, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_http_answer_fini) struct rs_http_answer answer = {0};
    rs_auto(rs_json_decrefp) json_t *page = NULL;
    rs_auto(rs_buf_fini) struct rs_buf path = {0};

    path_of(f, &path);
    if (rs_remote_call(&f->remote, "GET", rs_buf_text(&path), NULL, &answer, err) < 0)
        return -1;
    if (rs_json_parse(&page, rs_buf_text(&answer.body), rs_buf_len(&answer.body), f->remote.base,
                      err) < 0) {
        err->code = RS_SYSTEM; /* not the user's doing */
        return -1;
    }
    if (answer.status != 200)
        return rs_error_set(err, answer.status == 404 ? RS_NOT_FOUND : RS_SYSTEM, "%s",
                            rs_json_str(page, "error", "the REST API refuses to tell"));
    *ret = rs_steal(page);
    return 0;
}

/* The head may be away for a while, and come back elsewhere: what replicas print waits at their nodes. */
static void wait_for_head(struct follow *f, const struct rs_error *why)
{
    struct rs_remote again;
    struct rs_error err = {0};

    if (!f->away)
        fprintf(stderr, "rserve logs: %s; waiting for it, Ctrl-C ends this\n", why->msg);
    f->away = true;
    (void)poll(NULL, 0, PAUSE_MS);
    if (f->remote.by != RS_REMOTE_NAMED && rs_remote_find(&again, f->o->address, &err) == 0)
        f->remote = again;
}

static int go_on(struct follow *f, struct rs_error *err)
{
    for (;;) {
        rs_auto(rs_json_decrefp) json_t *page = NULL;

        if (ask(f, &page, err) < 0) {
            if (!f->cursor)
                return -1;
            wait_for_head(f, err);
            continue;
        }
        if (f->away)
            fprintf(stderr, "rserve logs: the head is back\n");
        f->away = false;
        free(f->cursor);
        f->cursor = rs_strdup(rs_json_str(page, "cursor", ""));
        if (!show(f, page) || !f->o->follow)
            return 0;
        if (!f->cursor[0]) /* no node has joined yet */
            (void)poll(NULL, 0, PAUSE_MS);
    }
}

static int run_logs(int argc, char *argv[], struct rs_error *err)
{
    struct logs_options o = {.lines = LINES_DEFAULT};
    struct follow f = {.o = &o};
    int n = rs_verb_parse(&rs_verb_logs, argc, argv, &o, err);
    int r;

    if (n < 0 || rs_remote_find(&f.remote, o.address, err) < 0)
        return -1;
    f.target = n == 1 ? argv[1] : "";
    f.color = rs_terminal_of(STDOUT_FILENO).color;
    r = go_on(&f, err);
    free(f.cursor);
    return r;
}

const struct rs_verb rs_verb_logs = {
    .name = "logs",
    .args = "[APP[#DEPLOYMENT[#REPLICA]]]",
    .summary = "show what replicas print",
    .details = "On all nodes, in the order of time; of replicas that have ended too, and of the\n"
               "import of the application's module. Each node keeps the last 8 MiB of lines;\n"
               "log_file_path in the details of the REST API names the file of a replica.",
    .max_args = 1,
    .options = logs_options,
    .run = run_logs,
};
