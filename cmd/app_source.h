/* What to serve, as a command line names it: a configuration file, or an import path with
 * arguments, and the options that go over it. For every verb that deploys.
 */
#pragma once

#include "core/base/error.h"
#include "core/config/config.h"

#include <jansson.h>

/* NULL: as the file says, or the default. */
struct rs_app_source {
    const char *name, *route_prefix;
    const char *app_dir;          /* relative to the working directory */
    const char *runtime_env;      /* a YAML or JSON file */
    const char *runtime_env_json; /* a JSON object */
    const char *working_dir;      /* a folder or a URL: runtime_env.working_dir */
    const char *default_app_dir;  /* of applications that name none; NULL: the folder of the file */
    const char *revision;         /* rserve.revision of every application */
    bool quiet;                   /* no warnings */
    bool strict;                  /* errors that fail one application only refuse the file */
};

/* By its existence or its looks; else an import path. */
bool rs_app_source_is_file(const char *word);

/* words[0] is FILE or MODULE:APP, then KEY=VALUE: `n` words in all. 0, -1 with `err`, or an exit status
 * after everything was said. */
RS_MUST_CHECK int rs_app_source_load(const struct rs_app_source *o, char *const *words, int n,
                                     struct rs_config **ret, struct rs_error *err);
/* What PUT /api/serve/applications/ is sent for it: what the user wrote, paths made absolute where
 * they were relative to the file. A new reference. */
json_t *rs_app_source_document(const struct rs_config *c);
