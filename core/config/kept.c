#include "core/config/kept.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <string.h>

json_t *rs_config_keep(const struct rs_config *c)
{
    const char *app_dir = NULL;

    for (size_t i = 0; i < c->app_count && !app_dir; i++)
        if (!json_object_get(json_object_get(c->apps[i].json, "rserve"), "app_dir"))
            app_dir = c->apps[i].app_dir;
    return json_pack("{s:s, s:s?, s:O}", "dir", c->dir, "app_dir", app_dir, "document", c->json);
}

int rs_config_kept(struct rs_config **ret, const json_t *kept, struct rs_error *err)
{
    rs_auto(rs_diags_fini) struct rs_diags diags = {0};
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    rs_auto(rs_freep) char *text = rs_json_dump(json_object_get(kept, "document"));
    rs_auto(rs_freep) char *file = rs_asprintf("%s/(kept)", rs_json_str(kept, "dir", ""));
    const char *app_dir = rs_json_str(kept, "app_dir", NULL);

    if (rs_config_parse(&c, text, strlen(text), file, &diags) < 0)
        return rs_diags_to_error(&diags, err);
    if (app_dir && rs_config_default_app_dir(c, app_dir, err) < 0)
        return -1;
    *ret = rs_steal(c);
    return 0;
}
