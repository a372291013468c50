// The page to try the API: connect with a token, pick or paste a patient, see trends, risk, reasoning and features.
// Text of the model is only ever set as text, never as HTML. The token lives in this module's memory alone.

import { number, series, trend } from "./charts.js";

const at = (id) => document.getElementById(id);
let token = "", features = {}, examples = [], named = new Set();

async function call(path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body, cache: "no-store" });
  const values = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(values.error), { problems: values.problems });
  return values;
}

function say(text) {
  at("status").textContent = text;
}

function listed(list, entries) {
  list.replaceChildren(...entries.map((entry) => {
    const item = document.createElement("li");
    item.append(...(Array.isArray(entry) ? entry : [entry]));
    return item;
  }));
}

function complain(error) {
  const problems = error.problems ?? [{ value: "the server does not answer", rule: "it runs", next: "start it again" }];
  listed(at("problems"), problems.map((one) => `${one.value}. Rule: ${one.rule}. Next step: ${one.next}.`));
  say("");
}

function forget() {
  at("problems").replaceChildren();
  named = new Set();
  at("result").hidden = true;
}

async function connect(event) {
  event.preventDefault();
  forget();
  token = at("token").value.trim();
  say("Connecting ...");
  try {
    const [model, schema, known] = await Promise.all([call("/v1/model"), call("/v1/schema"), call("/v1/examples")]);
    features = schema.properties.visits.items.properties.values.properties;
    examples = known;
    at("model").textContent = `Study ${model.study}, outcome ${model.outcome}, model ${model.model} on ` +
      `${model.base_model}, lineage ${model.lineage}.`;
    at("pick").replaceChildren(...examples.map((example, place) => new Option(example.name, String(place))));
    at("pick").disabled = at("predict").disabled = false;
    pick();
    say("Connected.");
    at("pick").focus();
  } catch (error) {
    complain(error);
  }
}

function pick() {
  forget();
  at("patient").value = JSON.stringify(examples[Number(at("pick").value)].patient, null, 1);
  at("patient").scrollTop = 0;
  draw();
}

function draw() {
  let patient = null;
  try {
    patient = JSON.parse(at("patient").value);
  } catch {
    at("trends").replaceChildren("The patient is no JSON.");
    return;
  }
  const known = series(patient, Object.keys(features));
  at("trends").replaceChildren(...known.map(({ name, points }) => trend(name, features[name]["x-unit"], points,
    features[name]["x-normal"], named.has(name))));
}

async function predict(event) {
  event.preventDefault();
  forget();
  at("predict").disabled = true;
  say("Asking the model ...");
  try {
    show(await call("/v1/predict", at("patient").value));
    say("Done.");
  } catch (error) {
    complain(error);
  } finally {
    at("predict").disabled = false;
  }
}

function percent(risk) {
  return risk === null ? "unreadable" : `${number(100 * risk)} %`;
}

function figure(title, text) {
  const box = document.createElement("div"), value = document.createElement("b");
  box.className = "figure";
  value.textContent = text;
  box.append(title, value);
  return box;
}

function show(found) {
  const span = found.interval;
  const range = span ? `${percent(span.low)} to ${percent(span.high)}` : "none";
  at("figures").replaceChildren(figure("Risk, as stated", percent(found.risk)), figure("Interval", range),
    figure("Risk, by its digits", percent(found.token_risk)), figure("Expert's risk", percent(found.expert_risk)));
  at("interval-note").textContent = span
    ? `Interval: ${span.method}; ${number(100 * span.level)} % of ${span.readable} readable answers of ` +
      `${span.answers}. It says how much the answer moves when asked again, not how sure the risk is.`
    : "No interval: too few of the sampled answers state a risk.";
  listed(at("features"), found.features.length ? found.features : ["none named"]);
  listed(at("expert-features"), found.expert_features.map((name) =>
    `${name} (${number(100 * found.expert_attention[name])} % of its attention)`));
  at("reasoning").replaceChildren(...found.segments.map((segment) => {
    if (segment.kind === "plain") return segment.text;
    const mark = document.createElement("mark");
    mark.className = segment.kind;
    mark.title = segment.feature;
    mark.textContent = segment.text;
    return mark;
  }));
  at("lineage").textContent = `${found.well_formed ? "" : "The answer breaks the grammar. "}Model ${found.model}, ` +
    `lineage ${found.lineage}. ${found.notice}`;
  named = new Set(found.features);
  draw();
  at("result").hidden = false;
  at("result").focus();
}

at("door").addEventListener("submit", connect);
at("ask").addEventListener("submit", predict);
at("pick").addEventListener("change", pick);
at("patient").addEventListener("input", draw);
