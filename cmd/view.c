#include "cmd/view.h"

#include "cmd/progress.h"
#include "cmd/terminal.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REDRAW_MS = 100 };

struct rs_view {
    struct rs_loop *loop;
    struct rs_view_ops ops;
    void *arg;
    const struct rs_controller *controller;
    struct rs_progress *progress;
    struct rs_timer redraw;
    bool ended, failed_told;
    bool was_ready; /* everything ran once: what fails from now on is mended, not given up */
};

/* To stdout, whole; a terminal that is stopped or a full pipe loses lines rather than requests. */
static void show(int fd, struct rs_buf *text)
{
    while (rs_buf_len(text)) {
        ssize_t n = write(fd, rs_buf_head(text), rs_buf_len(text));

        if (n > 0)
            rs_buf_consume(text, (size_t)n);
        else if (n < 0 && errno == EAGAIN &&
                 poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 100) > 0)
            continue;
        else if (n == 0 || errno != EINTR)
            break;
    }
    rs_buf_fini(text);
}

static void fill_app(struct rs_progress_app *to, const struct rs_controller_app_summary *from)
{
    struct rs_progress_deployment *d = rs_alloc((from->n_deployments + 1) * sizeof(*d));

    for (size_t i = 0; i < from->n_deployments; i++) {
        const struct rs_controller_deployment_summary *s = &from->deployments[i];

        d[i] = (struct rs_progress_deployment){
            .name = s->name,
            .status = s->status,
            .message = s->blocked && *s->blocked ? s->blocked : s->message,
            .running = (int)s->running,
            .target = (int)s->target,
        };
    }
    *to = (struct rs_progress_app){
        .name = from->name,
        .route_prefix = from->route_prefix,
        .status = from->status,
        .message = from->message,
        .deployments = d,
        .n_deployments = from->n_deployments,
    };
    for (size_t i = 0; i < from->n_deployments && strcmp(from->status, "DEPLOY_FAILED") == 0; i++) {
        if (from->deployments[i].last_error)
            to->message = from->deployments[i].last_error;
    }
}

static void look(struct rs_view *v)
{
    struct rs_controller_summary s = {0};
    struct rs_progress_snapshot snapshot = {0};
    struct rs_progress_app *apps;
    struct rs_buf out = {0};

    if (v->ended)
        return;
    rs_controller_summary(v->controller, &s);
    apps = rs_alloc((s.n_apps + 1) * sizeof(*apps));
    for (size_t i = 0; i < s.n_apps; i++)
        fill_app(&apps[i], &s.apps[i]);
    snapshot.apps = apps;
    snapshot.n_apps = s.n_apps;
    rs_progress_feed(v->progress, &snapshot, rs_clock_now(), &out);
    for (size_t i = 0; i < s.n_apps; i++)
        free((void *)(uintptr_t)apps[i].deployments);
    free(apps);
    v->was_ready |= s.n_apps && s.settled && !s.failed;
    if (s.settled && s.failed && !v->was_ready && !v->failed_told) {
        v->failed_told = true;
        rs_controller_summary_fini(&s);
        show(STDOUT_FILENO, &out);
        v->ops.on_failed(v->arg);
        return;
    }
    rs_controller_summary_fini(&s);
    show(STDOUT_FILENO, &out);
}

static int on_redraw(struct rs_timer *t)
{
    struct rs_view *v = rs_container_of(t, struct rs_view, redraw);

    look(v);
    if (!v->ended && rs_progress_busy(v->progress))
        rs_timer_start(t, v->loop, rs_clock_now() + REDRAW_MS * RS_MS);
    return 0;
}

void rs_view_event(struct rs_view *v, const struct rs_controller_event *e)
{
    int64_t soon = rs_clock_now();

    (void)e;
    if (!v->ended && (!v->redraw.loop || v->redraw.deadline > soon))
        rs_timer_start(&v->redraw, v->loop, soon);
}

/* On the terminal that shows the block both streams must pass it by; a stderr that goes elsewhere
 * is left alone. */
void rs_view_output(struct rs_view *v, int stream, const char *line, size_t len)
{
    struct rs_buf out = {0};
    rs_auto(rs_freep) char *text = rs_strndup(line, len);
    bool beside = stream == STDERR_FILENO && !isatty(STDERR_FILENO);

    if (v && !v->ended && !beside)
        rs_progress_note(v->progress, text, true, &out);
    else
        rs_buf_printf(&out, "%s\n", text);
    show(beside ? STDERR_FILENO : STDOUT_FILENO, &out);
}

void rs_view_end(struct rs_view *v)
{
    struct rs_buf out = {0};

    if (v->ended)
        return;
    v->ended = true;
    rs_timer_stop(&v->redraw);
    rs_progress_end(v->progress, &out);
    show(STDOUT_FILENO, &out);
}

int rs_view_new(struct rs_view **ret, struct rs_loop *loop, const struct rs_view_conf *conf,
                const struct rs_controller *c, const struct rs_view_ops *ops, void *arg,
                struct rs_error *err)
{
    struct rs_view *v = rs_alloc(sizeof(*v));
    struct rs_terminal terminal = rs_terminal_of(STDOUT_FILENO);
    const char *host = strcmp(conf->host, "0.0.0.0") != 0 ? conf->host : "127.0.0.1";
    char url[300] = "";

    (void)err;
    if (conf->port)
        snprintf(url, sizeof(url), "http%s://%s%s%s:%u", conf->https ? "s" : "",
                 strchr(host, ':') ? "[" : "", host, strchr(host, ':') ? "]" : "", conf->port);
    v->loop = loop;
    v->ops = *ops;
    v->arg = arg;
    v->controller = c;
    v->redraw.fn = on_redraw;
    v->progress = rs_progress_new(
        &(struct rs_progress_conf){
            .tty = terminal.tty && !conf->lines,
            .color = terminal.color,
            .width = terminal.width,
            .height = terminal.height,
            .quiet = conf->quiet,
            .verbose = conf->verbose,
            .json = conf->json,
            .url = url,
        },
        rs_clock_now());
    *ret = v;
    return 0;
}

void rs_view_free(struct rs_view *v)
{
    if (!v)
        return;
    rs_view_end(v);
    rs_progress_free(v->progress);
    free(v);
}
