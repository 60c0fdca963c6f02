/** The client is used from its folder in this repository, which lies outside of the example's. */
export default { turbopack: { root: new URL("../..", import.meta.url).pathname } };
