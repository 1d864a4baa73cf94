/* How a serving process gets to its head: in this process by a socket pair, elsewhere over TCP, again and
 * again; a control plane that is a child it starts and links.
 */
#include "cmd/serve-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/config/config.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECONNECT_MS = 500 };

/* --- the link to the head ------------------------------------------------------------------------ */

static int link_inside(struct rs_serve *s, struct rs_error *err)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return rs_error_errno(err, errno, "cannot create a socket pair");
    if (rs_head_adopt(s->head, fds[0], err) < 0) {
        close(fds[1]);
        return -1;
    }
    return rs_node_link(s->node, fds[1], err);
}

static int link_outside(struct rs_serve *s, struct rs_error *err)
{
    int fd;

    if (rs_tcp_connect(&s->head_address, &fd, err) < 0)
        return -1;
    return rs_node_link(s->node, fd, err);
}

static void try_again(struct rs_serve *s)
{
    rs_timer_start(&s->reconnect, s->loop, rs_clock_now() + RECONNECT_MS * RS_MS);
}

/* What runs goes on running; the head is tried again and again. */
static void away(struct rs_serve *s, const char *why)
{
    if (!s->away_told)
        rs_log_warn("the head is away, trying again", "head=%s why=\"%s\"", s->conf->head, why);
    s->away_told = true;
    try_again(s);
}

static void on_resolved(const struct rs_address *found, const struct rs_error *why, void *arg)
{
    struct rs_serve *s = arg;
    struct rs_error err = {0};

    if (s->interrupts) {
        /* it ends */
    } else if (!found) {
        away(s, why->msg);
    } else {
        s->head_address = *found;
        if (link_outside(s, &err) < 0)
            try_again(s);
    }
    rs_resolve_free(rs_steal(s->resolving)); /* `found` and `why` are in it */
}

/* A name is asked for each time: a head that is started anew elsewhere keeps it. */
static int reach_head(struct rs_serve *s, struct rs_error *err)
{
    if (!rs_address_is_name(s->conf->head))
        return link_outside(s, err);
    if (s->resolving)
        return 0;
    return rs_resolve_start(&s->resolving, s->loop, s->conf->head, 6379, NULL, on_resolved, s, err);
}

int rs_serve_on_reconnect(struct rs_timer *t)
{
    struct rs_serve *s = rs_container_of(t, struct rs_serve, reconnect);
    struct rs_error err = {0};

    if (reach_head(s, &err) < 0)
        try_again(s);
    return 0;
}

void rs_serve_head_gone(const char *why, void *arg)
{
    struct rs_serve *s = arg;

    if (s->control)
        rs_control_gone(s->control);
    else if (s->conf->head && !s->interrupts)
        away(s, why);
}

int rs_serve_link(struct rs_serve *s, struct rs_error *err)
{
    if (s->control)
        return 0; /* it is linked when it is started */
    if (s->head)
        return link_inside(s, err);
    if (!rs_address_is_name(s->conf->head) &&
        rs_address_parse(s->conf->head, 6379, &s->head_address, err) < 0)
        return rs_error_wrap(err, "--address");
    return reach_head(s, err);
}

/* --- a control plane that is a child ------------------------------------------------------------- */

static void on_control_started(int fd, void *arg)
{
    struct rs_serve *s = arg;
    struct rs_error err = {0};

    if (rs_node_link(s->node, fd, &err) < 0)
        rs_log_error("cannot link the control plane", "error=\"%s\"", err.msg);
}

static void on_control_failed(int exit_status, void *arg)
{
    struct rs_serve *s = arg;

    s->status = exit_status;
    s->interrupts++;
    rs_node_kill(s->node);
}

static const struct rs_control_ops control_ops = {on_control_started, on_control_failed};

int rs_serve_start_control(struct rs_serve *s, const struct rs_config *config, struct rs_error *err)
{
    const struct rs_serve_options *o = s->conf->options;
    struct rs_address join;
    rs_auto(rs_freep) char *cwd = getcwd(NULL, 0);
    const struct rs_control_conf conf = {
        .node_id = s->node_id,
        .app_dir = s->conf->app_dir ? s->conf->app_dir : cwd,
        .dashboard_host = o->dashboard_host,
        .dashboard_port = (uint16_t)o->dashboard_port,
        .join = &join,
        .http_host = s->http_host,
        .http_port = rs_node_port(s->node),
        .https = config && config->http.ssl[RS_SSL_KEYFILE],
        .driver_socket = rs_node_driver_socket(s->node),
        .values_dir = rs_node_values_dir(s->node),
        .keep_dir = rs_node_state_dir(s->node),
        .forget = s->conf->forget,
        .quiet = o->quiet,
        .verbose = o->verbose,
        .json = o->log_format == 1,
        .config = config,
    };

    if (rs_address_parse(s->conf->join, 6379, &join, err) < 0)
        return -1;
    return rs_control_new(&s->control, s->loop, &conf, &control_ops, s, err);
}
