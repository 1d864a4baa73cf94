/* rserve control-plane: what decides in `rserve head`, in a process of its own. A node starts it, ends it
 * and survives it; see cmd/control.h.
 *
 * SIGTERM: it ends, what runs goes on. SIGUSR1: the node is about to end, nothing is shown any more.
 * Ctrl-C does not reach it: it has a session of its own.
 */
#include "cmd/control_plane.h"

#include "cmd/head.h"
#include "cmd/serve.h"
#include "cmd/verb.h"
#include "cmd/view.h"
#include "core/base/alloc.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/config/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

struct plane {
    const json_t *conf;
    struct rs_loop *loop;
    struct rs_metrics *metrics;
    struct rs_head *head;
    struct rs_view *view;
    struct rs_io signals;
};

static int cmd_control_plane(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_verb_control_plane = {
    .name = "control-plane",
    .args = "",
    .summary = "the control plane of a head, which starts it",
    .run = cmd_control_plane,
};

static int on_signal(struct rs_io *io, uint32_t events)
{
    struct plane *p = rs_container_of(io, struct plane, signals);
    struct signalfd_siginfo info;

    (void)events;
    if (read(io->fd, &info, sizeof(info)) != sizeof(info))
        return 0;
    rs_view_end(p->view);
    if (info.ssi_signo == SIGTERM)
        rs_loop_stop(p->loop);
    return 0;
}

static int take_signals(struct plane *p, struct rs_error *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    p->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (p->signals.fd < 0)
        return rs_error_errno(err, errno, "signalfd");
    p->signals.fn = on_signal;
    return rs_io_start(&p->signals, p->loop, EPOLLIN, err);
}

static void on_event(const struct rs_controller_event *e, void *arg)
{
    struct plane *p = arg;

    if (p->view)
        rs_view_event(p->view, e);
}

/* The listener is the node's: there is one from the start, or none. */
static int on_listen(const struct rs_config *config, uint16_t *port, void *arg,
                     struct rs_error *err)
{
    (void)config;
    (void)port;
    (void)arg;
    return rs_error_set(err, RS_CONFLICT,
                        "this head was started without HTTP (proxy_location: Disabled)");
}

static const struct rs_head_ops head_ops = {on_event, on_listen};

static void on_failed(void *arg)
{
    (void)arg; /* it was shown; a head goes on */
}

static const struct rs_view_ops view_ops = {.on_failed = on_failed};

static int start_head(struct plane *p, struct rs_error *err)
{
    const json_t *j = p->conf;
    const struct rs_head_conf conf = {
        .node_id = rs_json_str(j, "node_id", ""),
        .app_dir = rs_json_str(j, "app_dir", NULL),
        .rest_listening = RS_CONTROL_REST,
        .join_listening = RS_CONTROL_JOIN,
        .http_host = rs_json_str(j, "http_host", ""),
        .http_port = (uint16_t)rs_json_int(j, "http_port", 0),
        .driver_socket = rs_json_str(j, "driver_socket", NULL),
        .values_dir = rs_json_str(j, "values_dir", NULL),
        .keep_dir = rs_json_str(j, "keep_dir", NULL),
        .forget = rs_json_bool(j, "forget", false),
        .asks_for_metrics = true,
    };

    return rs_head_new(&p->head, p->loop, &conf, p->metrics, &head_ops, p, err);
}

static int start_view(struct plane *p, struct rs_error *err)
{
    const json_t *j = p->conf;
    const struct rs_view_conf conf = {
        .quiet = rs_json_bool(j, "quiet", false),
        .verbose = rs_json_bool(j, "verbose", false),
        .json = rs_json_bool(j, "json", false),
        .lines = true, /* the node writes to the same terminal */
        .host = rs_json_str(j, "http_host", ""),
        .port = (uint16_t)rs_json_int(j, "http_port", 0),
        .https = rs_json_bool(j, "https", false),
    };

    rs_log_setup(conf.quiet     ? RS_LOG_ERROR
                 : conf.verbose ? RS_LOG_DEBUG
                                : RS_LOG_WARN,
                 conf.json ? RS_LOG_JSON : RS_LOG_TEXT);
    return rs_view_new(&p->view, p->loop, &conf, rs_head_controller(p->head), &view_ops, p, err);
}

/* What it was told, and by whom; the node is linked last: its JOIN is read when all of that holds. */
static int start(struct plane *p, struct rs_error *err)
{
    const json_t *given = json_object_get(p->conf, "config");
    struct rs_config *config = NULL;

    if (json_is_object(given) && rs_config_kept(&config, given, err) < 0)
        return -1;
    rs_head_restore(p->head, !config);
    if (config)
        rs_head_who(p->head, "command line");
    if (config && rs_head_apply(p->head, config, err) < 0)
        return -1;
    return rs_head_adopt(p->head, RS_CONTROL_LINK, err);
}

static int run(struct plane *p, struct rs_error *err)
{
    int r;

    if (rs_loop_new(&p->loop, err) < 0 || take_signals(p, err) < 0)
        return -1;
    p->metrics = rs_metrics_new();
    if (start_head(p, err) < 0 || start_view(p, err) < 0)
        return -1;
    r = start(p, err);
    return r < 0 ? r : rs_loop_run(p->loop);
}

static void finish(struct plane *p)
{
    rs_view_free(p->view);
    p->view = NULL;
    rs_head_free(p->head);
    rs_io_stop(&p->signals);
    rs_closep(&p->signals.fd);
    rs_loop_free(p->loop);
    rs_metrics_free(p->metrics);
}

static int read_conf(json_t **ret, struct rs_error *err)
{
    rs_auto(rs_freep) char *text = NULL;
    struct stat st;

    for (int fd = RS_CONTROL_CONF; fd <= RS_CONTROL_JOIN; fd++)
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return rs_error_set(err, RS_INVALID, "'rserve head' starts this, not people");
    if (fstat(RS_CONTROL_CONF, &st) < 0 || st.st_size > RS_CONTROL_CONF_MAX)
        return rs_error_set(err, RS_INVALID, "'rserve head' starts this, not people");
    text = rs_alloc((size_t)st.st_size + 1);
    if (rs_file_read(RS_CONTROL_CONF, text, (size_t)st.st_size, 0) < 0)
        return rs_error_errno(err, errno, "cannot read what the node says");
    return rs_json_parse(ret, text, (size_t)st.st_size, "what the node says", err);
}

static int cmd_control_plane(int argc, char *argv[], struct rs_error *err)
{
    struct plane p = {.signals = {.fd = -1}};
    rs_auto(rs_json_decrefp) json_t *conf = NULL;
    int r;

    (void)argc;
    (void)argv;
    if (read_conf(&conf, err) < 0)
        return -1;
    prctl(PR_SET_NAME, "rserve-control");
    p.conf = conf;
    r = run(&p, err);
    finish(&p);
    if (r < 0 && err->msg[0]) { /* who reads it has started a head */
        fprintf(stderr, "rserve head: %s\n", err->msg);
        return RS_EXIT_FAILED;
    }
    return r < 0 ? RS_EXIT_FAILED : r;
}
