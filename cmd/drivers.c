#include "cmd/drivers.h"

#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/map.h"
#include "net/wire/tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Where the data plane has them: a deployment that is in no routing table, so nothing is sent there. */
#define DRIVERS_APP ""
#define DRIVERS_NAME "drivers"

struct driver {
    char *id;
    int64_t pid; /* 0: it said no HELLO yet */
};

struct rs_drivers {
    struct rs_dataplane *dataplane;
    struct rs_listener *listener;
    struct rs_map all; /* id -> struct driver */
    char *node_id, *values_dir, *owner, *path;
    unsigned next;
    void (*on_owner_gone)(void *arg);
    void *arg;
};

static const char *adopt(struct rs_drivers *d, int fd)
{
    struct driver *x = rs_alloc(sizeof(*x));

    x->id = rs_asprintf("driver-%.8s-%u", d->node_id, ++d->next);
    rs_map_put(&d->all, x->id, x);
    rs_dataplane_attach(d->dataplane, DRIVERS_APP, DRIVERS_NAME, NULL, x->id, fd);
    return x->id;
}

/* The folder is this user's alone already; who may connect is asked again, as a folder's mode is easily
 * changed. */
static bool is_ours(int fd)
{
    struct ucred who = {0};
    socklen_t len = sizeof(who);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
        return false;
    return who.uid == getuid() || who.uid == 0;
}

static void on_accept(int fd, void *arg)
{
    struct rs_drivers *d = arg;

    if (!is_ours(fd)) {
        rs_log_warn("a program of another user was refused", "socket=%s", d->path);
        close(fd);
        return;
    }
    adopt(d, fd);
}

/* A path that is too long for a socket's address is named through its folder's descriptor. */
static int listen_in(struct rs_drivers *d, struct rs_loop *loop, const char *dir,
                     struct rs_error *err)
{
    rs_auto(rs_closep) int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    rs_auto(rs_freep) char *path = rs_asprintf("/proc/self/fd/%d/node.sock", dir_fd);
    struct rs_address at;

    if (dir_fd < 0)
        return rs_error_errno(err, errno, "cannot open '%s'", dir);
    d->path = rs_asprintf("%s/node.sock", dir);
    if (unlink(d->path) < 0 && errno != ENOENT)
        return rs_error_errno(err, errno, "cannot remove '%s'", d->path);
    if (rs_address_unix(strlen(d->path) < sizeof(((struct sockaddr_un *)NULL)->sun_path) ? d->path
                                                                                         : path,
                        &at, err) < 0)
        return -1;
    return rs_listener_new(&d->listener, loop, &at, on_accept, d, err);
}

int rs_drivers_new(struct rs_drivers **ret, struct rs_loop *loop, struct rs_dataplane *dataplane,
                   const struct rs_drivers_conf *conf, struct rs_error *err)
{
    rs_auto(rs_drivers_freep) struct rs_drivers *d = rs_alloc(sizeof(*d));

    d->dataplane = dataplane;
    d->node_id = rs_strdup(conf->node_id);
    d->values_dir = rs_strdup(conf->values_dir);
    d->on_owner_gone = conf->on_owner_gone;
    d->arg = conf->arg;
    if (conf->run_dir && listen_in(d, loop, conf->run_dir, err) < 0)
        return -1;
    *ret = rs_steal(d);
    return 0;
}

static void driver_free(struct driver *x)
{
    if (!x)
        return;
    free(x->id);
    free(x);
}

void rs_drivers_free(struct rs_drivers *d)
{
    if (!d)
        return;
    rs_listener_free(d->listener);
    if (d->path)
        unlink(d->path);
    for (size_t i = 0; i < rs_map_slots(&d->all); i++)
        driver_free(rs_map_at(&d->all, i, NULL));
    rs_map_fini(&d->all);
    free(d->node_id);
    free(d->values_dir);
    free(d->owner);
    free(d->path);
    free(d);
}

const char *rs_drivers_path(const struct rs_drivers *d)
{
    return d->path;
}

int rs_drivers_own(struct rs_drivers *d, int fd, struct rs_error *err)
{
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return rs_error_errno(err, errno, "cannot use the program's socket");
    d->owner = rs_strdup(adopt(d, fd));
    return 0;
}

/* It reads why, and hangs up. */
static void refuse(struct rs_drivers *d, const char *id, int64_t protocol)
{
    rs_auto(rs_freep) char *why = rs_asprintf(
        "the program speaks protocol %lld, this rserve %s speaks %d: use the same version",
        (long long)protocol, rs_version(), RS_WIRE_VERSION);
    rs_auto(rs_json_decrefp) json_t *msg = json_pack("{s:s, s:s}", "phase", "join", "error", why);

    rs_log_warn("a program was refused", "driver=%s error=\"%s\"", id, why);
    rs_dataplane_tell(d->dataplane, id, RS_MSG_FAILED, 0, msg);
}

bool rs_drivers_hello(struct rs_drivers *d, const char *id, const json_t *hello)
{
    struct driver *x = rs_map_get(&d->all, id);
    rs_auto(rs_json_decrefp) json_t *init = NULL;

    if (!x)
        return false;
    x->pid = rs_json_int(hello, "pid", 0);
    if (rs_json_int(hello, "protocol", 0) != RS_WIRE_VERSION) {
        refuse(d, id, rs_json_int(hello, "protocol", 0));
        return true;
    }
    rs_log_info("a program connected", "driver=%s pid=%lld", id, (long long)x->pid);
    init = json_pack("{s:s, s:s, s:s, s:s}", "driver_id", id, "node_id", d->node_id, "version",
                     rs_version(), "values_dir", d->values_dir);
    rs_dataplane_tell(d->dataplane, id, RS_MSG_INIT, 0, init);
    return true;
}

bool rs_drivers_gone(struct rs_drivers *d, const char *id)
{
    struct driver *x = rs_map_remove(&d->all, id);

    if (!x)
        return false;
    rs_log_info("a program disconnected", "driver=%s pid=%lld", id, (long long)x->pid);
    rs_dataplane_detach(d->dataplane, id, "the program ended");
    if (d->owner && strcmp(d->owner, id) == 0)
        d->on_owner_gone(d->arg);
    driver_free(x);
    return true;
}
