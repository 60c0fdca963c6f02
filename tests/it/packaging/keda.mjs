// Holds ScaledObjects against KEDA's schemas: node keda.mjs FOLDER-OF-THE-PACKAGES FILE-WITH-A-JSON-LIST
// The package checks types and what is required. It lets unknown keys pass, so those are compared with its own list.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, file] = process.argv.slice(2);
const models = `${folder}/node_modules/@kubernetes-models/keda/keda.sh/v1alpha1`;
const { ScaledObject } = await import(pathToFileURL(`${models}/ScaledObject.js`));

function knownKeys(type) {
  const text = readFileSync(`${models}/${type}.d.ts`, "utf8");
  return new Set([...text.matchAll(/^ {4}"(\w+)"\??:/gm)].map((match) => match[1]));
}

function refuseUnknown(type, value) {
  const known = knownKeys(type);
  const unknown = Object.keys(value).filter((key) => !known.has(key));
  if (unknown.length > 0) throw new Error(`${type} has no ${unknown.join(", ")}`);
}

const objects = JSON.parse(readFileSync(file, "utf8"));
for (const object of objects) {
  new ScaledObject(object).validate();
  refuseUnknown("ScaledObjectSpec", object.spec);
  refuseUnknown("ScaleTarget", object.spec.scaleTargetRef);
  object.spec.triggers.forEach((trigger) => refuseUnknown("ScaleTriggers", trigger));
}
console.log(`${objects.length} understood`);
