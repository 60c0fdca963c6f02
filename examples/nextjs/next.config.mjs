/** The client is used from its folder in this repository, which is outside of the example's folder. */
export default { turbopack: { root: new URL("../..", import.meta.url).pathname } };
