// What a person can do about a problem: one sentence for each code and each close reason.

const REMEDIES = {
  offline: 'Check your connection, and that the server is still running.',
  key_missing: 'This server asks for an API key: enter it above the Start button.',
  key_unknown: 'The API key was not accepted: check it and try again.',
  token_invalid: 'The session’s token has run out: start again.',
  token_missing: 'The session’s token has run out: start again.',
  capacity: 'Every place is taken: try again in a moment.',
  draining: 'The server is being restarted: try again in a minute.',
  not_ready: 'The model is still warming up: try again in a moment.',
  worker_lost: 'The model stopped and could not be brought back: start again.',
  too_large: 'Choose a smaller picture or a shorter sound.',
  wrong_type: 'Use a PNG, JPEG or WebP picture.',
  bad_picture: 'Choose another picture: one face, seen from the front, works best.',
  bad_text: 'Write a shorter or simpler text.',
  refused_by_model: 'Choose another portrait.',
  rate: 'Wait a few seconds before you try again.',
  slow_sender: 'Your connection is too slow for this: try a smaller file.',
  no_portrait: 'Choose a portrait again: uploads are kept for an hour only.',
  no_session: 'The session is gone: start again.',
  session_closed: 'Start again when you like.',
  microphone_refused: 'Allow the microphone in the browser’s address bar, then press Speak again.',
  microphone_absent: 'Connect a microphone, or speak by file or text.',
  microphone_insecure: 'Open the page over https or on localhost: browsers give no microphone otherwise.',
  bad_sound: 'Use a WAV, MP3, FLAC, OGG or M4A file.',
  no_connection: 'A firewall may block UDP: try another network, or ask for a TURN server.',
  no_codec: 'Use a current Chrome, Edge, Firefox or Safari.',
};

const REASONS = {
  client: 'You ended the session.',
  idle_timeout: 'The session ended because nobody spoke for a while.',
  max_duration: 'The session reached its longest duration.',
  capacity: 'No place became free in time.',
  worker_lost: 'The model stopped and could not be brought back.',
  auth: 'The session’s token ran out before it started.',
  shutdown: 'The server is shutting down.',
};

/** One sentence that says what to do; never empty. */
export const remedyFor = (code) => REMEDIES[code] ?? 'Try again; if it happens again, tell who runs this server.';

/** Why a session ended, in words. */
export const reasonText = (reason) => REASONS[reason] ?? 'The session ended.';
