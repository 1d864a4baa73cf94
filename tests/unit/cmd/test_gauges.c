#include "cmd/gauges.h"

#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <string.h>

static const char details[] =
    "{\"proxies\": {\"n1\": {\"node_ip\": \"10.0.0.1\", \"status\": \"HEALTHY\"}}, "
    "\"applications\": {"
    "\"rag\": {\"status\": \"RUNNING\", \"deployments\": {"
    "\"A\": {\"status\": \"HEALTHY\", \"replicas\": ["
    "{\"replica_id\": \"r1\", \"state\": \"RUNNING\"}, {\"replica_id\": \"r2\", \"state\": "
    "\"STOPPING\"}, {\"replica_id\": \"r3\", \"state\": \"STARTING\"}]},"
    "\"B\": {\"status\": \"UPSCALING\", \"target_num_replicas\": 3, \"deployment_config\": "
    "{\"autoscaling_config\": {\"target_ongoing_requests\": 2.0}}, \"autoscaling_detail\": "
    "{\"metrics\": {\"desired_replicas\": 4, \"total_requests\": 7.5}}}}},"
    "\"bad\": {\"status\": \"DEPLOY_FAILED\", \"deployments\": {\"A\": {\"status\": \"ODD\"}}}}}";

static char *text_after(const char *json)
{
    rs_auto(rs_metrics_freep) struct rs_metrics *m = rs_metrics_new();
    rs_auto(rs_json_decrefp) json_t *first = json_loads(details, 0, NULL);
    rs_auto(rs_json_decrefp) json_t *then = json_loads(json, 0, NULL);
    struct rs_buf out = {0};
    struct rs_gauges g;

    ck_assert(first && then);
    rs_gauges_init(&g, m);
    rs_gauges_update(&g, first);
    rs_gauges_update(&g, then);
    rs_metrics_text(m, &out);
    return rs_buf_steal(&out);
}

START_TEST(statuses)
{
    static const char *const lines[] = {
        "\nray_serve_application_status{application=\"rag\"} 6.0\n"
        "ray_serve_application_status{application=\"bad\"} 1.0\n",
        "\nray_serve_deployment_status{deployment=\"A\",application=\"rag\"} 6.0\n"
        "ray_serve_deployment_status{deployment=\"B\",application=\"rag\"} 4.0\n"
        "ray_serve_deployment_status{deployment=\"A\",application=\"bad\"} 0.0\n",
        "\nray_serve_deployment_replica_healthy{deployment=\"A\",replica=\"r1\",application="
        "\"rag\"} "
        "1.0\n"
        "ray_serve_deployment_replica_healthy{deployment=\"A\",replica=\"r2\",application=\"rag\"} "
        "0.0\n# ",
        "\nray_serve_autoscaling_target_replicas{deployment=\"B\",application=\"rag\"} 3.0\n",
        "\nray_serve_autoscaling_desired_replicas{deployment=\"B\",application=\"rag\"} 4.0\n",
        "\nray_serve_autoscaling_total_requests{deployment=\"B\",application=\"rag\"} 7.5\n",
        "\nray_serve_autoscaling_target_ongoing_requests{deployment=\"B\",application=\"rag\"} "
        "2.0\n",
        "\nray_serve_proxy_status{node_id=\"n1\",node_ip_address=\"10.0.0.1\"} 2.0\n",
    };
    rs_auto(rs_freep) char *text = text_after(details);

    for (size_t i = 0; i < RS_COUNT(lines); i++)
        ck_assert_msg(strstr(text, lines[i]), "%s in\n%s", lines[i], text);
}
END_TEST

/* What is gone is not exported any more. */
START_TEST(gone)
{
    rs_auto(rs_freep) char *text =
        text_after("{\"applications\": {\"new\": {\"status\": \"DEPLOYING\"}}}");

    ck_assert_ptr_nonnull(
        strstr(text, "\nray_serve_application_status{application=\"new\"} 5.0\n"));
    ck_assert_ptr_null(strstr(text, "rag"));
    ck_assert_ptr_null(strstr(text, "replica"));
}
END_TEST

RS_CHECK_MAIN("gauges", tcase_add_test(tc, statuses); tcase_add_test(tc, gone);)
