// One WebRTC connection: the face's picture and sound come, the microphone goes.

const GATHER_MS = 1000;
// A short gap heals by itself; after this the connection is made anew.
const GAP_MS = 2500;

/** Fires `stream` (detail: MediaStream), `connected` and `lost`. */
export class Peer extends EventTarget {
  #gap = 0;
  #isClosed = false;

  /** @param {RTCIceServer[]} iceServers */
  constructor(iceServers) {
    super();
    this.connection = new RTCPeerConnection({ iceServers, bundlePolicy: 'max-bundle' });
    this.audio = this.connection.addTransceiver('audio', { direction: 'sendrecv' });
    this.connection.addTransceiver('video', { direction: 'recvonly' });
    this.stream = new MediaStream();
    this.connection.addEventListener('track', ({ track, streams }) => this.#add(track, streams));
    this.connection.addEventListener('connectionstatechange', () => this.#changed());
  }

  /** Offer, hand the offer to `exchange`, take its answer. Raises what `exchange` raises. */
  async connect(exchange) {
    await this.connection.setLocalDescription(await this.connection.createOffer());
    await gathered(this.connection);
    const answer = await exchange(this.connection.localDescription);
    if (!this.#isClosed) {
      await this.connection.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
    }
  }

  /** Send this track from now on; null sends nothing. Nothing is negotiated again. */
  async useMicrophone(track) {
    if (!this.#isClosed) await this.audio.sender.replaceTrack(track);
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#gap);
    this.connection.close();
  }

  #add(track, streams) {
    // The server's own stream keeps picture and sound in step; ours is for servers that name none.
    if (streams[0]) this.stream = streams[0];
    else this.stream.addTrack(track);
    this.dispatchEvent(new CustomEvent('stream', { detail: this.stream }));
  }

  #changed() {
    clearTimeout(this.#gap);
    if (this.#isClosed) return;
    const state = this.connection.connectionState;
    if (state === 'connected') this.dispatchEvent(new Event('connected'));
    else if (state === 'failed' || state === 'closed') this.#lose();
    else if (state === 'disconnected') this.#gap = setTimeout(() => this.#lose(), GAP_MS);
  }

  #lose() {
    if (!this.#isClosed) this.dispatchEvent(new Event('lost'));
  }
}

/** The answer must see our addresses, but no slow one is waited for. */
function gathered(connection) {
  if (connection.iceGatheringState === 'complete') return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHER_MS);
    connection.addEventListener('icegatheringstatechange', () => {
      if (connection.iceGatheringState !== 'complete') return;
      clearTimeout(timer);
      resolve();
    });
  });
}
