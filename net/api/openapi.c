/* The OpenAPI 3.1 document of this API: out of the table of routes and the tables of shapes, so that it
 * says what is so.
 */
#include "net/api/internal.h"
#include "net/api/schema.h"

#include "core/base/json.h"

#include <ctype.h>
#include <string.h>

static json_t *schema_of(const char *type)
{
    return rs_api_type_json(type, NULL);
}

static json_t *parameter(const char *in, const char *name, const char *type, const char *help)
{
    json_t *p = json_pack("{s:s, s:s, s:b, s:o}", "name", name, "in", in, "required",
                          strcmp(in, "path") == 0, "schema", schema_of(type));

    if (help)
        json_object_set_new(p, "description", json_string(help));
    return p;
}

static json_t *parameters(const struct rs_api_route *r)
{
    json_t *list = json_array();

    for (const char *at = strchr(r->path, '{'); at; at = strchr(at, '{')) {
        rs_auto(rs_freep) char *name = rs_strndup(at + 1, strcspn(at, "}") - 1);

        json_array_append_new(list, parameter("path", name, "string", NULL));
        at++;
    }
    for (const struct rs_api_param *q = r->query; q && q->name; q++)
        json_array_append_new(list, parameter("query", q->name, q->type, q->help));
    if (r->tagged && r->changes) {
        json_array_append_new(
            list,
            parameter("header", "If-Match", "string",
                      "an ETag: 412 unless what would be changed still has it; *: if it is there"));
        json_array_append_new(
            list, parameter("header", "If-None-Match", "string", "*: 412 if it is there already"));
    }
    return list;
}

static json_t *content(const char *type, json_t *schema)
{
    return json_pack("{s:{s:o}}", type, "schema", schema);
}

static json_t *response(const char *help, json_t *body)
{
    return json_pack("{s:s, s:o}", "description", help, "content", body);
}

static json_t *responses(const struct rs_api_route *r)
{
    json_t *all = json_object();
    json_t *ok = response(r->help, r->answer ? content("application/json", schema_of(r->answer))
                                             : content("text/plain", schema_of("string")));

    if (r->tagged)
        json_object_set_new(ok, "headers",
                            json_pack("{s:{s:s, s:o}}", "ETag", "description",
                                      "of the configuration", "schema", schema_of("string")));
    json_object_set_new(all, "200", ok);
    json_object_set_new(
        all, "default",
        response("It was refused.", content("application/json", schema_of("Error"))));
    return all;
}

/* "getApiV1ApplicationsApp". */
static json_t *operation_id(const struct rs_api_route *r)
{
    rs_auto(rs_buf_fini) struct rs_buf id = {0};
    bool upper = true;

    for (const char *p = r->method; *p; p++)
        rs_buf_printf(&id, "%c", tolower((unsigned char)*p));
    for (const char *p = r->path; *p; p++) {
        if (isalnum((unsigned char)*p))
            rs_buf_printf(&id, "%c", upper ? toupper((unsigned char)*p) : *p);
        upper = !isalnum((unsigned char)*p);
    }
    return json_string(rs_buf_text(&id));
}

static json_t *operation(const struct rs_api_route *r)
{
    json_t *op = json_pack("{s:o, s:s, s:o, s:o}", "operationId", operation_id(r), "summary",
                           r->help, "parameters", parameters(r), "responses", responses(r));

    if (r->body)
        json_object_set_new(op, "requestBody",
                            json_pack("{s:b, s:o}", "required", 1, "content",
                                      content("application/json", schema_of(r->body))));
    if (r->changes)
        json_object_set_new(op, "security", json_pack("[{}, {s:[]}]", "token"));
    return op;
}

static json_t *paths(void)
{
    json_t *all = json_object();

    for (size_t i = 0; i < rs_api_n_routes; i++) {
        const struct rs_api_route *r = &rs_api_routes[i];
        json_t *path = json_object_get(all, r->path);
        rs_auto(rs_freep) char *method = rs_strdup(r->method);

        if (!path) {
            path = json_object();
            json_object_set_new(all, r->path, path);
        }
        for (char *p = method; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        json_object_set_new(path, method, operation(r));
    }
    return all;
}

static json_t *schemas(void)
{
    json_t *all = json_object();

    for (size_t i = 0; i < rs_api_n_schemas; i++)
        json_object_set_new(all, rs_api_schemas[i].name, rs_api_schema_json(&rs_api_schemas[i]));
    return all;
}

json_t *rs_api_openapi_json(const char *version)
{
    return json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:o, s:{s:{s:s, s:s, s:s}}}}", "openapi",
                     "3.1.0", "info", "title", "rserve", "version", version, "description",
                     "The admin API. What clients of Ray use is below /api/serve; /api/v1 is "
                     "rserve's own.",
                     "paths", paths(), "components", "schemas", schemas(), "securitySchemes",
                     "token", "type", "http", "scheme", "bearer", "description",
                     "RSERVE_TOKEN, where the listener is not on loopback");
}

void rs_api_openapi(const struct rs_api_call *call, struct rs_web_answer *a)
{
    rs_auto(rs_json_decrefp) json_t *document = rs_api_openapi_json(call->api->version);

    rs_api_answer_json(a, 200, document);
}
