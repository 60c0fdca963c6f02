// An OpenID provider for the tests: a real one (npm oidc-provider) whose users sign in with any password. Whoever is called `ops` or
// `root` is in the group of that name; everybody but `stranger` is in `staff`.
//
//   node provider.mjs PORT REDIRECT_URI
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [port, redirectUri] = process.argv.slice(2);
const { resolve } = createRequire(`${process.env.OIDC_MODULES}/`);
const { Provider } = await import(pathToFileURL(resolve("oidc-provider")).href);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "taskgate",
      client_secret: "a secret of the client",
      redirect_uris: [redirectUri],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  claims: { openid: ["sub"], profile: ["preferred_username"], groups: ["groups"] },
  // Claims stand in the ID token itself, as most providers can be told to do.
  conformIdTokenClaims: false,
  cookies: { keys: ["only for tests"] },
  pkce: { required: () => true },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: id === "stranger" ? [] : ["staff", ...(["ops", "root"].includes(id) ? [id] : [])] }),
  }),
});

provider.listen(Number(port), "127.0.0.1", () => console.log(`ready on ${port}`));
