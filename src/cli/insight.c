/* Requests with pieces. */
#include <string.h>
#include "cli/insight.h"

static cJSON *request(const char *what, double from)
{
	cJSON *args = cJSON_CreateObject();

	cJSON_AddStringToObject(args, "do", what);
	if (from)
		cJSON_AddNumberToObject(args, "from", from);
	return args;
}

int insight_do(struct client *c, const char *command, const char *what, cJSON **result, struct err *e)
{
	return client_call_with(c, command, request(what, 0), result, e);
}

int insight_read(struct client *c, const char *command, cJSON **last, int (*take)(void *arg, const char *text), void *arg, struct err *e)
{
	double from = 0;

	for (;;) {
		cJSON *j = NULL;
		int ret = client_call_with(c, command, request("read", from), &j, e);
		const char *text = NULL;
		double next = 0;

		if (ret < 0)
			return ret;
		text = cJSON_GetStringValue(cJSON_GetObjectItem(j, "text"));
		next = cJSON_GetNumberValue(cJSON_GetObjectItem(j, "next"));
		if (!text || !(next >= from))
			ret = err_set(e, EPROTO, "%s: unexpected answer", c->name);
		else if (next > from && (ret = take(arg, text)) < 0)
			err_set(e, -ret, "%s: %s", command, strerror(-ret));
		if (ret < 0 || next == from) {
			if (last && !ret)
				*last = j;
			else
				cJSON_Delete(j);
			return ret;
		}
		cJSON_Delete(j);
		from = next;
	}
}
