/* rserve instance: the node of one program, which starts it and ends it by ending.
 *
 * `ray.init()` and `serve.run()` outside of rserve call it (sched/pyruntime/rserve/_driver.py). HTTP
 * listens when the program asks for it.
 */
#include "cmd/serve.h"
#include "cmd/verb.h"

#include <fcntl.h>

struct instance_options {
    struct rs_serve_options serve;
    int64_t fd;
};

static const struct rs_option instance_options[] = {
    {"fd", 0, RS_OPT_INT, offsetof(struct instance_options, fd), "FD",
     "socket that the program holds the other end of", .min = 3, .max = 1 << 20},
    RS_SERVE_HEAD_OPTIONS(struct instance_options, serve),
    RS_SERVE_NODE_OPTIONS(struct instance_options, serve),
    {NULL},
};

static int cmd_instance(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_verb_instance = {
    .name = "instance",
    .args = "",
    .summary = "the node of one program, which starts it",
    .options = instance_options,
    .run = cmd_instance,
};

static int cmd_instance(int argc, char *argv[], struct rs_error *err)
{
    struct instance_options o = {.serve = RS_SERVE_DEFAULTS};
    int r;

    if (rs_verb_parse(&rs_verb_instance, argc, argv, &o, err) < 0)
        return -1;
    if (o.fd < 3)
        r = rs_error_set(err, RS_INVALID, "--fd is missing: programs start this, not people");
    else if (fcntl((int)o.fd, F_SETFD, FD_CLOEXEC) < 0)
        r = rs_error_set(err, RS_INVALID, "--fd %d is not open", (int)o.fd);
    else
        r = rs_serve(&(struct rs_serve_conf){.options = &o.serve, .owner_fd = (int)o.fd}, err);
    rs_options_fini(instance_options, &o);
    return r;
}
