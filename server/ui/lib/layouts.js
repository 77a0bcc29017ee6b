/** Axes of arrays of images as the API names them, and as people read them. */
export const LAYOUTS = [
  ["", "as their shape tells"], ["NHW", "N, height, width"], ["NHWC", "N, height, width, channels"], ["NCHW", "N, channels, height, width"],
];
