// Flashes and beeps made in the page itself, so that the probe can be tried without a server.

const PERIOD_S = 0.8;
const BEEP_S = 0.08;

/** A stream that flashes with every beep; the beep comes `lateMs` later (or earlier, negative). */
export async function flashingStream(context, lateMs = 0) {
  await context.resume();
  const canvas = document.createElement('canvas');
  canvas.width = 256;
  canvas.height = 256;
  const pen = canvas.getContext('2d');
  const speaker = context.createMediaStreamDestination();
  const volume = new GainNode(context, { gain: 0 });
  const tone = new OscillatorNode(context, { frequency: 880 });
  tone.connect(volume).connect(speaker);
  tone.start();
  const firstS = context.currentTime + 0.6;
  for (let n = 0; n < 40; n += 1) {
    const onS = firstS + n * PERIOD_S + lateMs / 1000;
    volume.gain.setValueAtTime(0.5, onS);
    volume.gain.setValueAtTime(0, onS + BEEP_S);
  }
  const draw = () => {
    const sinceS = context.currentTime - firstS;
    const isFlash = sinceS >= 0 && sinceS % PERIOD_S < BEEP_S;
    pen.fillStyle = isFlash ? '#fff' : '#606060';
    pen.fillRect(0, 0, 256, 256);
    requestAnimationFrame(draw);
  };
  draw();
  const stream = canvas.captureStream();
  stream.addTrack(speaker.stream.getAudioTracks()[0]);
  return stream;
}

/** The same stream after an encoder, a network and a decoder of the browser's own. */
export async function overWebRtc(stream) {
  const [here, there] = [new RTCPeerConnection(), new RTCPeerConnection()];
  here.onicecandidate = ({ candidate }) => there.addIceCandidate(candidate);
  there.onicecandidate = ({ candidate }) => here.addIceCandidate(candidate);
  const arrived = new Promise((resolve) => {
    there.ontrack = ({ streams }) => { if (streams[0].getTracks().length === 2) resolve(streams[0]); };
  });
  for (const track of stream.getTracks()) here.addTrack(track, stream);
  await here.setLocalDescription();
  await there.setRemoteDescription(here.localDescription);
  await there.setLocalDescription();
  await here.setRemoteDescription(there.localDescription);
  return arrived;
}
