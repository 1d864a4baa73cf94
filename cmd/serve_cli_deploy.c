/* serve deploy: sends a configuration to a running instance. */
#include "cmd/app_source.h"
#include "cmd/remote.h"
#include "cmd/serve_cli.h"
#include "core/base/json.h"

#include <stdio.h>

struct deploy_options {
    struct rs_app_source source;
    const char *address;
};

#define AT(field) offsetof(struct deploy_options, field)
static const struct rs_option deploy_options[] = {
    {"address", 'a', RS_OPT_STRING, AT(address), "URL",
     "where the REST API is (default $RAY_DASHBOARD_ADDRESS, $RAY_ADDRESS, the newest head of this "
     "machine, http://127.0.0.1:8265)"},
    {"name", 0, RS_OPT_STRING, AT(source.name), "NAME",
     "name of the application (default: as in FILE, or default)"},
    {"runtime-env", 0, RS_OPT_STRING, AT(source.runtime_env), "FILE",
     "runtime_env of the application, a YAML file"},
    {"runtime-env-json", 0, RS_OPT_STRING, AT(source.runtime_env_json), "JSON", "the same as JSON"},
    {"working-dir", 0, RS_OPT_STRING, AT(source.working_dir), "DIR",
     "working_dir of the runtime_env: a folder that the nodes have, or a URL of a zip file"},
    {NULL},
};

static int run_deploy(int argc, char *argv[], struct rs_error *err)
{
    struct deploy_options o = {0};
    struct rs_config *config = NULL;
    rs_auto(rs_json_decrefp) json_t *doc = NULL;
    struct rs_remote remote;
    int n = rs_verb_parse(&rs_serve_verb_deploy, argc, argv, &o, err);
    int r;

    if (n < 0 || rs_remote_find(&remote, o.address, err) < 0)
        return -1;
    r = rs_app_source_load(&o.source, argv + 1, n, &config, err);
    if (r != 0) /* what was wrong with the file has been said */
        return r < 0 ? -1 : RS_EXIT_FAILED;
    doc = rs_app_source_document(config);
    rs_config_free(config);
    if (rs_remote_put(&remote, doc, err) < 0)
        return -1;
    puts("\nSent deploy request successfully.\n"
         " * Use `serve status` to check applications' statuses.\n"
         " * Use `serve config` to see the current application config(s).\n");
    return 0;
}

const struct rs_verb rs_serve_verb_deploy = {
    .of = "serve",
    .name = "deploy",
    .args = "FILE|MODULE:APP [KEY=VALUE]...",
    .summary = "deploy applications to a running instance",
    .details = "What runs there and is not named is deleted. Modules are looked for where the head "
               "was started, on Python's path, and in --working-dir.",
    .min_args = 1,
    .max_args = -1,
    .options = deploy_options,
    .run = run_deploy,
    .file_args = true,
};
