// The one place that knows the rendering library.
export {
  html, render, useState, useEffect, useLayoutEffect, useMemo, useRef, useCallback, useReducer,
} from '../vendor/htm-preact.js';
