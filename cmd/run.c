/* rserve run: what to serve comes from a file or from an import path. */
#include "cmd/app_source.h"
#include "cmd/check.h"
#include "cmd/serve.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/config/config.h"

#include <stddef.h>

struct run_options {
    struct rs_serve_options serve;
    struct rs_app_source source;
    bool check, no_import;
};

static const struct rs_option run_options[] = {
    {"app-dir", 'd', RS_OPT_STRING, offsetof(struct run_options, source.app_dir), "DIR",
     "where modules are imported from (default: the folder of FILE, or the working directory)"},
    {"name", 0, RS_OPT_STRING, offsetof(struct run_options, source.name), "NAME",
     "name of the application (default: as in FILE, or default)"},
    {"route-prefix", 0, RS_OPT_STRING, offsetof(struct run_options, source.route_prefix), "PREFIX",
     "HTTP path below which it answers (default: as in FILE, or /)"},
    RS_SERVE_HTTP_OPTIONS(struct run_options, serve),
    RS_SERVE_HEAD_OPTIONS(struct run_options, serve),
    RS_SERVE_NODE_OPTIONS(struct run_options, serve),
    {"check", 0, RS_OPT_FLAG, offsetof(struct run_options, check), NULL,
     "validate, print the resulting deployments, and exit 0 or 2"},
    {"no-import", 0, RS_OPT_FLAG, offsetof(struct run_options, no_import), NULL,
     "with --check: do not import the applications' modules"},
    {NULL},
};

static int cmd_run(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_verb_run = {
    .name = "run",
    .args = "FILE|MODULE:APP [KEY=VALUE]...",
    .summary = "serve applications on this machine",
    .details = "FILE is a ServeConfigV2 file (rserve help config); MODULE:APP an application or a "
               "builder function, which gets the KEY=VALUE pairs as its arguments.\n"
               "Ctrl-C finishes the requests under way and stops; a second one stops now.",
    .min_args = 1,
    .max_args = -1,
    .options = run_options,
    .run = cmd_run,
    .file_args = true,
};

static int cmd_run(int argc, char *argv[], struct rs_error *err)
{
    struct run_options o = {.serve = RS_SERVE_DEFAULTS};
    struct rs_config *config = NULL;
    rs_auto(rs_freep) char *folder = NULL; /* of FILE: where later configurations start too */
    int n = rs_verb_parse(&rs_verb_run, argc, argv, &o, err);
    int r;

    if (n < 0)
        return -1;
    o.source.quiet = o.serve.quiet;
    o.source.strict = o.check;
    r = rs_app_source_load(&o.source, argv + 1, n, &config, err);
    if (r == 0)
        folder = rs_strdup(config->dir);
    if (r == 0 && o.check)
        r = rs_check(config, &o.serve, !o.no_import, err);
    else if (r == 0)
        r = rs_serve(
            &(struct rs_serve_conf){.kind = "run",
                                    .options = &o.serve,
                                    .config = config,
                                    .app_dir = o.source.app_dir ? o.source.app_dir : folder,
                                    .http = true,
                                    .fail_fast = !rs_app_source_is_file(argv[1])},
            err);
    rs_options_fini(run_options, &o);
    return r;
}
