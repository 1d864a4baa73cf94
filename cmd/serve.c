/* Brings up what a serving process consists of, runs the loop, and takes it down again in the
 * reverse order. Who comes first matters: signals are blocked before any thread exists, the guard
 * is forked (by the node) before the lanes start.
 */
#include "cmd/serve-internal.h"

#include "cmd/certificate.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/machine.h"
#include "core/config/config.h"
#include "core/resource/labels.h"
#include "core/resource/resources.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_NOTE_MS = 2000 };

const char *const rs_log_formats[] = {"text", "json", NULL};

/* To stderr, in the form that the log has. */
static void say(const struct rs_serve *s, const char *event, const char *what)
{
    if (s->conf->options->quiet)
        return;
    if (s->conf->options->log_format == 1) {
        rs_auto(rs_json_decrefp) json_t *line =
            json_pack("{s:s, s:s}", "event", event, "waits_for", what);
        rs_auto(rs_freep) char *text = rs_json_dump(line);

        fprintf(stderr, "%s\n", text);
    } else {
        fprintf(stderr, "%s%s%s\n", event, *what ? ": waiting for " : "", what);
    }
}

/* --- the end ------------------------------------------------------------------------------------- */

static int on_note(struct rs_timer *t)
{
    struct rs_serve *s = rs_container_of(t, struct rs_serve, note);
    rs_auto(rs_freep) char *what = rs_node_waits_for(s->node);

    say(s, "still stopping (Ctrl-C again: now)", what);
    rs_timer_start(t, s->loop, rs_clock_now() + WAIT_NOTE_MS * RS_MS);
    return 0;
}

static int on_signal(struct rs_io *io, uint32_t events)
{
    struct rs_serve *s = rs_container_of(io, struct rs_serve, signals);
    struct signalfd_siginfo info;
    rs_auto(rs_freep) char *what = NULL;

    (void)events;
    if (read(io->fd, &info, sizeof(info)) != sizeof(info))
        return 0;
    if (info.ssi_signo == SIGUSR1) {
        rs_node_reopen_log(s->node);
        return 0;
    }
    if (s->view)
        rs_view_end(s->view);
    if (s->interrupts++ > 0) {
        say(s, "stopping now", "");
        rs_node_kill(s->node);
        return 0;
    }
    if (s->control)
        rs_control_stopping(s->control);
    rs_node_drain(s->node);
    if (rs_node_ongoing(s->node)) /* without requests it is over in a moment */
        what = rs_node_waits_for(s->node);
    say(s, "stopping", what ? what : "");
    rs_timer_start(&s->note, s->loop, rs_clock_now() + WAIT_NOTE_MS * RS_MS);
    return 0;
}

static void on_drained(void *arg)
{
    struct rs_serve *s = arg;

    rs_loop_stop(s->loop);
}

/* SIGINT, SIGTERM, SIGHUP and SIGUSR1 become a descriptor; children get their masks back at exec. */
static int take_signals(struct rs_serve *s, struct rs_error *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals.fd < 0)
        return rs_error_errno(err, errno, "signalfd");
    s->signals.fn = on_signal;
    return rs_io_start(&s->signals, s->loop, EPOLLIN, err);
}

/* --- what others are told ------------------------------------------------------------------------ */

/* HOST:PORT as this machine can reach it. */
static void reach(char *out, size_t size, const char *host, uint16_t port)
{
    const char *name = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ? "127.0.0.1" : host;
    bool v6 = strchr(name, ':') != NULL;

    snprintf(out, size, "%s%s%s:%u", v6 ? "[" : "", name, v6 ? "]" : "", port);
}

static void announce(struct rs_serve *s, const struct rs_serve_ready *at)
{
    struct rs_running me = {.kind = s->conf->kind,
                            .node_id = s->node_id,
                            .dashboard = at->dashboard,
                            .join = at->join,
                            .http = at->http,
                            .started = rs_clock_wall()};
    struct rs_error err = {0};

    /* A folder that cannot be written must not stop serving. */
    if (rs_running_announce(&s->running, &me, &err) < 0)
        rs_log_info("others will not find this node", "error=\"%s\"", err.msg);
}

static void now_ready(struct rs_serve *s)
{
    struct rs_serve_ready at = {.node_id = s->node_id, .log_dir = rs_node_log_dir(s->node)};

    if (s->ready_told)
        return;
    s->ready_told = true;
    if (!s->conf->head)
        reach(at.dashboard, sizeof(at.dashboard), s->conf->options->dashboard_host,
              s->head ? rs_head_port(s->head) : rs_control_port(s->control));
    if (s->head)
        rs_head_join_address(s->head, at.join, sizeof(at.join));
    else if (s->control)
        rs_control_join_address(s->control, at.join, sizeof(at.join));
    if (s->http_host[0] && rs_node_port(s->node))
        reach(at.http, sizeof(at.http), s->http_host, rs_node_port(s->node));
    if (s->conf->kind)
        announce(s, &at);
    if (s->conf->on_ready && s->conf->on_ready(&at, s->conf->arg) < 0) {
        s->status = RS_EXIT_FAILED;
        s->interrupts++;
        rs_node_kill(s->node);
    }
}

static void on_joined(void *arg)
{
    struct rs_serve *s = arg;

    s->away_told = false;
    if (s->control)
        rs_control_ready(s->control);
    if (!s->head)
        now_ready(s);
}

/* --- what people see ----------------------------------------------------------------------------- */

static void on_event(const struct rs_controller_event *e, void *arg)
{
    struct rs_serve *s = arg;

    if (s->view && e->kind == RS_EVENT_SCALE && !s->conf->options->quiet)
        rs_view_output(s->view, STDOUT_FILENO, e->text, strlen(e->text));
    if (s->view)
        rs_view_event(s->view, e);
}

static void on_failed(void *arg)
{
    struct rs_serve *s = arg;

    if (!s->conf->fail_fast || s->interrupts)
        return;
    s->status = RS_EXIT_FAILED;
    s->interrupts++;
    rs_node_kill(s->node);
}

static void on_output(int stream, const char *line, size_t len, void *arg)
{
    struct rs_serve *s = arg;

    rs_view_output(s->view, stream, line, len);
}

static const struct rs_view_ops view_ops = {.on_failed = on_failed};

static int start_view(struct rs_serve *s, struct rs_error *err)
{
    struct rs_view_conf conf = {
        .quiet = s->conf->options->quiet,
        .verbose = s->conf->options->verbose,
        .json = s->conf->options->log_format == 1,
        .host = s->http_host,
        .port = rs_node_port(s->node),
        .https = s->conf->config && s->conf->config->http.ssl[RS_SSL_KEYFILE],
    };

    return rs_view_new(&s->view, s->loop, &conf, rs_head_controller(s->head), &view_ops, s, err);
}

static void on_changed(const struct rs_reload_change *change, void *arg)
{
    struct rs_serve *s = arg;
    const char *slash = strrchr(change->files[0], '/');
    rs_auto(rs_freep) char *text = NULL;
    struct rs_config *config = NULL;
    struct rs_error err = {0};
    int r;

    if (s->interrupts)
        return;
    text = rs_asprintf(change->n > 1 || change->more ? "%s and others have changed: deploying anew"
                                                     : "%s has changed: deploying anew",
                       slash ? slash + 1 : change->files[0]);
    say(s, text, "");
    rs_log_info("a file has changed", "file=\"%s\" files=%zu", change->files[0], change->n);
    r = s->conf->reload(change, &config, s->conf->arg, &err);
    if (r == 0) {
        rs_head_who(s->head, "reload");
        r = rs_head_apply(s->head, config, &err);
    }
    if (r < 0)
        rs_log_error("what has changed cannot be deployed", "file=\"%s\" error=\"%s\"",
                     change->files[0], err.msg);
}

/* --- resources ----------------------------------------------------------------------------------- */

int rs_serve_resources(const struct rs_serve_options *o, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *all = json_object();
    struct rs_resources checked = {0};
    double cpus = o->num_cpus >= 0 ? rs_fixed_double(o->num_cpus) : rs_machine_cores();
    int64_t memory = o->memory > 0 ? o->memory : (int64_t)rs_machine_memory();

    if (o->resources)
        json_object_update(all, o->resources);
    json_object_set_new(all, "CPU", json_real(cpus));
    if (o->num_gpus > 0)
        json_object_set_new(all, "GPU", json_real(rs_fixed_double(o->num_gpus)));
    json_object_set_new(all, "memory", json_integer(memory));
    if (rs_resources_from_json(&checked, all, err) < 0)
        return rs_error_wrap(err, "--resources");
    rs_resources_fini(&checked);
    *ret = rs_steal(all);
    return 0;
}

/* --- life ---------------------------------------------------------------------------------------- */

static void node_id(char out[33])
{
    unsigned char bits[16];

    while (getrandom(bits, sizeof(bits), 0) != sizeof(bits))
        ;
    for (size_t i = 0; i < sizeof(bits); i++)
        snprintf(out + 2 * i, 3, "%02x", bits[i]);
}

/* Borrows from `front`, see rs_http_front_json. */
static void set_front(struct rs_ingress_conf *conf, const json_t *front)
{
    for (size_t i = 0; i < RS_TLS_FILES; i++)
        conf->tls.of[i] = rs_json_str(front, rs_tls_names[i], NULL);
    conf->proxy_protocol = rs_json_bool(front, "proxy_protocol", false);
    conf->trusted_proxies = json_object_get(front, "trusted_proxies");
}

static int on_listen(const struct rs_config *c, uint16_t *port, void *arg, struct rs_error *err)
{
    struct rs_serve *s = arg;
    rs_auto(rs_json_decrefp) json_t *front = rs_http_front_json(&c->http);
    struct rs_ingress_conf conf = {
        .host = c->http.host,
        .port = (uint16_t)c->http.port,
        .root_path = c->http.root_path,
        .request_timeout = c->http.request_timeout > 0 ? c->http.request_timeout : 0,
        .keep_alive_timeout = c->http.keep_alive_timeout,
        .access_log = s->conf->options->access_log ? NULL : c->http.access_log,
        .access_log_json =
            s->conf->options->log_format == 1 || c->http.access_log_format == RS_ENCODING_JSON,
    };

    set_front(&conf, front);
    if (rs_node_listen(s->node, &conf, err) < 0)
        return -1;
    *port = rs_node_port(s->node);
    return 0;
}

/* Opens the listener of a worker that waited for the first configuration to say where. */
static void on_http(const json_t *http, void *arg)
{
    struct rs_serve *s = arg;
    const char *host = rs_json_str(http, "host", "");
    bool anywhere = strcmp(host, "0.0.0.0") == 0 || strncmp(host, "127.", 4) == 0;
    struct rs_ingress_conf conf = {
        /* another address is that of the head's machine */
        .host = anywhere ? host : s->conf->later_http_host,
        .port = (uint16_t)rs_json_int(http, "port", 0),
        .root_path = rs_json_str(http, "root_path", ""),
        .request_timeout = (int64_t)(rs_json_num(http, "request_timeout_s", 0) * 1e9),
        .keep_alive_timeout = (int64_t)(rs_json_num(http, "keep_alive_timeout_s", 90) * 1e9),
        .access_log = s->conf->options->access_log ? NULL : rs_json_str(http, "access_log", NULL),
        .access_log_json = rs_json_bool(http, "access_log_json", false),
    };
    struct rs_error err = {0};

    if (s->head || !s->conf->later_http_host || !conf.port || s->http_tried)
        return;
    s->http_tried = true;
    set_front(&conf, json_object_get(http, "front"));
    if (rs_node_listen(s->node, &conf, &err) < 0)
        rs_log_error("this node takes no HTTP requests", "error=\"%s\"", err.msg);
}

/* The program that all this is for has ended. */
static void on_owner_gone(void *arg)
{
    struct rs_serve *s = arg;

    s->interrupts++;
    rs_node_kill(s->node);
}

static void ingress_of(const struct rs_serve *s, const json_t *front, struct rs_ingress_conf *ret)
{
    const struct rs_serve_options *o = s->conf->options;
    const struct rs_config *c = s->conf->config;

    *ret = (struct rs_ingress_conf){
        .host = o->host             ? o->host
                : c && c->http.host ? c->http.host
                                    : "127.0.0.1",
        .port = (uint16_t)(o->port >= 0 ? o->port
                           : c          ? c->http.port
                                        : 8000),
        .root_path = c ? c->http.root_path : "",
        .request_timeout = c && c->http.request_timeout > 0 ? c->http.request_timeout : 0,
        .keep_alive_timeout = c ? c->http.keep_alive_timeout : 90 * RS_SEC,
        .header_timeout = o->header_timeout * RS_SEC,
        .buffer_body = (size_t)o->buffer_body,
        .max_body = (size_t)o->max_body,
        .access_log = o->access_log ? o->access_log
                      : c           ? c->http.access_log
                                    : NULL,
        .access_log_json =
            o->log_format == 1 || (c && c->http.access_log_format == RS_ENCODING_JSON),
        .max_header = 24 << 10, /* libmicrohttpd wipes so much and a little more per request */
        .max_connections = 0,
        .lanes = (unsigned)o->lanes,
        .object_store = (uint64_t)o->object_store,
        .buffer_memory = (uint64_t)o->buffer_memory,
    };
    if (!s->conf->http || (c && c->proxy_location == RS_PROXY_DISABLED))
        ret->host = NULL;
    if (front)
        set_front(ret, front);
}

static const struct rs_node_ops node_ops_plain = {
    .on_http = on_http,
    .on_joined = on_joined,
    .on_head_gone = rs_serve_head_gone,
    .on_drained = on_drained,
    .on_owner_gone = on_owner_gone,
};
static const struct rs_node_ops node_ops_view = {
    .on_joined = on_joined,
    .on_output = on_output,
    .on_head_gone = rs_serve_head_gone,
    .on_drained = on_drained,
};

/* The progress block is on the terminal: what replicas write must come by it. */
static bool owns_terminal(const struct rs_serve *s)
{
    return !s->conf->head && !s->conf->keep && s->conf->options->log_format == 0 &&
           !s->conf->options->quiet && isatty(STDOUT_FILENO);
}

static int start_node(struct rs_serve *s, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *resources = NULL;
    rs_auto(rs_json_decrefp) json_t *labels = NULL;
    rs_auto(rs_json_decrefp) json_t *front = NULL;
    struct rs_address peers;
    char host[256] = "localhost";
    struct rs_node_conf conf = {
        .node_id = s->node_id,
        .name = s->conf->name ? s->conf->name : host,
        .state_dir = s->conf->options->state_dir,
        .alone = s->conf->keep,
        .python = s->conf->options->python,
        .echo = !s->conf->background,
        .drivers = s->conf->owner_fd == 0,
    };

    (void)gethostname(host, sizeof(host) - 1);
    if (rs_serve_resources(s->conf->options, &resources, err) < 0)
        return -1;
    if (s->conf->peer) {
        if (rs_address_parse(s->conf->peer, 0, &peers, err) < 0)
            return -1;
        conf.peers = &peers;
    }
    if (s->conf->options->labels && rs_labels_parse(&labels, s->conf->options->labels, err) < 0)
        return rs_error_wrap(err, "--labels");
    conf.resources = resources;
    conf.labels = labels;
    if (s->conf->config) {
        front = rs_http_front_json(&s->conf->config->http);
        if (rs_certificate_check(s->conf->config, err) < 0)
            return -1;
    }
    ingress_of(s, front, &conf.ingress);
    snprintf(s->http_host, sizeof(s->http_host), "%s", conf.ingress.host ? conf.ingress.host : "");
    return rs_node_new(&s->node, s->loop, &conf, s->metrics,
                       owns_terminal(s) ? &node_ops_view : &node_ops_plain, s, err);
}

static int start_head(struct rs_serve *s, struct rs_error *err)
{
    struct rs_address join;
    rs_auto(rs_freep) char *cwd = getcwd(NULL, 0);
    struct rs_head_conf conf = {
        .node_id = s->node_id,
        .app_dir = s->conf->app_dir ? s->conf->app_dir : cwd,
        .dashboard_host = s->conf->options->dashboard_host,
        .dashboard_port = (uint16_t)s->conf->options->dashboard_port,
        .http_host = s->http_host,
        .http_port = rs_node_port(s->node),
        .later_http_host = s->conf->later_http_host,
        .driver_socket = rs_node_driver_socket(s->node),
        .values_dir = rs_node_values_dir(s->node),
    };

    if (s->conf->join) {
        if (rs_address_parse(s->conf->join, 6379, &join, err) < 0)
            return -1;
        conf.join = &join;
    }
    return rs_head_new(&s->head, s->loop, &conf, s->metrics,
                       &(struct rs_head_ops){on_event, on_listen}, s, err);
}

/* Thousands of connections need as many descriptors. */
static void raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void on_collect(void *arg)
{
    struct rs_serve *s = arg;

    if (s->head)
        rs_head_collect(s->head);
}

static int open_sides(struct rs_serve *s, struct rs_error *err)
{
    struct rs_side_conf conf = {
        .host = s->conf->side_host, .metrics = s->metrics, .collect = on_collect, .arg = s};

    conf.option = "--dashboard-agent-listen-port";
    conf.port = (uint16_t)s->conf->health_port;
    if (s->conf->health_port > 0 && rs_side_new(&s->health, s->loop, &conf, err) < 0)
        return -1;
    conf.option = "--metrics-export-port";
    conf.port = (uint16_t)s->conf->metrics_port;
    if (s->conf->metrics_port > 0 && rs_side_new(&s->figures, s->loop, &conf, err) < 0)
        return -1;
    return 0;
}

static int start(struct rs_serve *s, struct rs_config **config, struct rs_error *err)
{
    if (rs_loop_new(&s->loop, err) < 0 || take_signals(s, err) < 0)
        return -1;
    s->metrics = rs_metrics_new();
    if (start_node(s, err) < 0)
        return -1;
    if (s->conf->keep) {
        if (rs_serve_start_control(s, *config, err) < 0)
            return -1;
    } else if (!s->conf->head && (start_head(s, err) < 0 || start_view(s, err) < 0)) {
        return -1;
    }
    if (open_sides(s, err) < 0 || rs_serve_link(s, err) < 0)
        return -1;
    if (s->conf->owner_fd > 0 && rs_node_owned_by(s->node, s->conf->owner_fd, err) < 0)
        return -1;
    if (s->head && *config)
        rs_head_who(s->head, "command line");
    if (s->head && *config && rs_head_apply(s->head, rs_steal(*config), err) < 0)
        return -1;
    if (s->head)
        now_ready(s);
    if (s->conf->reload_folders)
        return rs_reload_new(&s->reload, s->loop, s->conf->reload_folders, on_changed, s, err);
    return 0;
}

static void finish(struct rs_serve *s)
{
    rs_running_withdraw(s->running);
    rs_reload_free(s->reload);
    rs_side_free(s->health);
    rs_side_free(s->figures);
    rs_resolve_free(s->resolving);
    rs_timer_stop(&s->reconnect);
    rs_timer_stop(&s->note);
    rs_view_free(s->view);
    s->view = NULL; /* what replicas still write is shown without it */
    rs_head_free(s->head);
    rs_control_free(s->control);
    rs_node_free(s->node);
    rs_io_stop(&s->signals);
    rs_closep(&s->signals.fd);
    rs_loop_free(s->loop);
    rs_metrics_free(s->metrics);
}

int rs_serve(const struct rs_serve_conf *conf, struct rs_error *err)
{
    struct rs_serve s = {.conf = conf,
                         .signals = {.fd = -1},
                         .reconnect = {.fn = rs_serve_on_reconnect},
                         .note = {.fn = on_note}};
    rs_auto(rs_config_freep) struct rs_config *config = conf->config;
    const struct rs_serve_options *o = conf->options;
    int r;

    rs_log_setup(o->quiet     ? RS_LOG_ERROR
                 : o->verbose ? RS_LOG_DEBUG
                              : RS_LOG_WARN,
                 o->log_format == 1 ? RS_LOG_JSON : RS_LOG_TEXT);
    raise_limits();
    node_id(s.node_id);
    r = start(&s, &config, err);
    if (r == 0)
        r = rs_loop_run(s.loop);
    finish(&s);
    return r < 0 ? r : s.status;
}
